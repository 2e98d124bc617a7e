//! Tests of the whole: see the files beside this one. `tests/run` runs them all.
