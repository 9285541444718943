//! Both halves of a pull as state machines without sockets, files or clocks.
//!
//! The [`Agent`] takes the replies of the proxy and returns its requests; it works on a [`DirectoryView`], its view of the
//! directory and of what was fetched. The [`Proxy`] takes requests and gives replies one by one, each made when the one
//! before is on its way; it works on a [`ReleaseView`]. Whatever the peer sends, each half stays within its bounds or
//! refuses. The conversation is described in PROTOCOL 4.

mod views;
mod agent;
mod proxy;

pub use agent::{Agent, Fetched, Window};
pub use proxy::{Proxy, Release};
pub use views::{DirectoryView, Method, ReleaseView};
