//! Windows: the starter gave this process no console, so there is none to leave.

/// Done by the starter.
pub(super) fn own_session() {}
