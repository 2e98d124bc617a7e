//! Both doors of the pages against a daemon and an engine of the tests: the bridge itself, and its HTTP front.

mod bridge;
mod serve;
mod servers;
