//! slipway-agent-client
