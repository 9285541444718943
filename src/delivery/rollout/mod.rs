//! Rollouts: a release goes through a group in batches.
//!
//! The [`Machine`] decides, from what is seen of the members, who is to have which release; it knows no clock and no
//! ledger. The [`Book`] keeps rollouts and the releases of groups in the ledger. `crate::proxy::rollouts` does what machines decide.

mod share;
mod rules;
mod member;
mod machine;
mod stored;
mod status;
mod book;

pub use book::{Book, Changed};
pub use machine::{Machine, Phase};
pub use member::{Left, Member, MemberState, Sight};
pub use rules::{Group, Groups, OnFailure, OnNewer, Rules, shared};
pub use share::Share;
pub use status::Noted;
pub use stored::{GroupRelease, MEMBERS_MAX, OwnRelease, Rollout, StoredMember, shortened};
