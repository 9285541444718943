//! What people would use to bring a release over a link, in each case that is timed.

pub mod rsync;
pub mod ssh;
pub mod tar;
pub mod whit;
