//! Both halves of a push as state machines without sockets, files or clocks.
//!
//! The [`Agent`] takes the replies of the proxy and works on an [`InputView`](crate::InputView), its view of the input; the
//! [`Proxy`] takes the messages of the agent and works on a [`SpaceView`](crate::SpaceView), its view of a space. Both
//! return what to send. Whatever order the peer chooses, each half stays within its bounds or refuses. The conversation is
//! described in PROTOCOL 3.

mod naming;
mod record_queries;
mod block_sums;
mod proving;
mod opened;
mod agent;
mod proxy;

pub use agent::{Action, Agent, Opening, Window};
pub use opened::{OpenedBatch, Opener};
pub use proxy::Proxy;
