//! On whose behalf a push is made that comes through other proxies.

use super::Granted;
use ground::faults::Fault;
use ground::limits::HOPS_MAX;
use protocol::token::Hop;
use protocol::wire::Refusal;

impl Granted {
    /// Checks the proxies that a push says it came through: only another proxy's token may say so, and a release does not
    /// come through a proxy twice.
    pub(super) fn allow_behalf(&self, behalf: &[Hop]) -> Result<(), Refusal> {
        let Some(first) = behalf.first() else { return Ok(()) };
        if !self.grant.on_behalf {
            return Err(Refusal {
                fault: Fault::Denied,
                text: format!("the token does not allow a push on behalf of `{}`", first.user),
                hint: Some("create the proxy's token with `whit token create --on-behalf`".to_owned()),
            });
        }
        let [a, b, c, d, ..] = *self.shared.identity.fingerprint().as_bytes();
        let is_loop = behalf.iter().any(|hop| hop.proxy == [a, b, c, d]);
        if !is_loop && behalf.len() <= HOPS_MAX {
            return Ok(());
        }
        let way: Vec<String> = behalf.iter().take(HOPS_MAX).map(Hop::proxy_text).collect();
        let text = if is_loop {
            format!("the release came through this proxy before: {}", way.join(", "))
        } else {
            format!("the release came through {} proxies, at most {HOPS_MAX} may pass it on", behalf.len())
        };
        let hint =
            "look for a circle among the destinations of `kind = \"proxy\"`: each delivers to the next";
        Err(Refusal { fault: Fault::Input, text, hint: Some(hint.to_owned()) })
    }
}
