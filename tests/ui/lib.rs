//! Only tests: see `window/`.
