//! The fuzz targets, as plain functions: a panic is a finding (docs/FUZZING.md).

pub mod targets;
