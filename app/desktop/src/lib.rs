//! The window and the tray: a thin client of the control API and of the engine, without logic of either.
//!
//! ```text
//!   ui/ (pages) ─┬─ commands of the window ─┬─▶ bridge ─┬─▶ api.sock     (control API)
//!                └─ HTTP and WebSocket ─────┘           └─▶ docker.sock  (the engine's own API)
//! ```
//!
//! The pages have one door to the host, the [`bridge`], with two fronts: the window's commands, and a small HTTP server
//! ([`serve`]) for plain browsers and for tests. What is not the window builds without it, so that the daemon and the CLI
//! need no web view to be built beside it.

pub mod bridge;
mod credentials;
pub mod daemon;
mod exchange;
mod history;
pub mod platform;
mod rebuild;
pub mod serve;
mod system;
mod transfer;
#[cfg(feature = "window")]
mod window;

pub use exchange::Answered;
pub use history::HistoryVerb;
pub use rebuild::Rebuild;
pub use transfer::Transfer;
#[cfg(feature = "window")]
pub use window::run;
