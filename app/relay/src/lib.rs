//! slipway-relay
