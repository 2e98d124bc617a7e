//! slipway-settings
