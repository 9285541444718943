//! The proof that an agent has chunks which it does not send.
//!
//! A token for some applications of a space must not get at the content of others by naming it. The proxy draws a nonce
//! and says which chunks; whoever has them computes one keyed hash over their bytes (decision 0024).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use super::Marks;

/// The context of the hash, which is used for nothing else.
const CONTEXT: &str = "whit 2026-11-30 proof that an agent has chunks";

/// Which chunks an agent is to prove that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Random bytes, used once.
    pub nonce: ByteArray<32>,
    /// Marks the chunks among all chunk references of the `Segments` that the next `Missing` answers, in order.
    pub marks: Marks,
}

impl Challenge {
    /// Makes a challenge about the marked chunks.
    pub fn new(nonce: [u8; 32], marks: Marks) -> Self {
        Self { nonce: ByteArray::new(nonce), marks }
    }
}

/// Computes the answer to a challenge: a keyed BLAKE3 of the chunks' bytes, in order.
#[derive(Debug, Clone)]
pub struct Possession(blake3::Hasher);

impl Possession {
    /// Begins the answer to the challenge with this nonce.
    pub fn new(nonce: &[u8; 32]) -> Self {
        Self(blake3::Hasher::new_keyed(&blake3::derive_key(CONTEXT, nonce)))
    }

    /// Adds the next chunk's bytes.
    pub fn add(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    /// Returns the proof.
    pub fn proof(&self) -> ByteArray<32> {
        ByteArray::new(*self.0.finalize().as_bytes())
    }

    /// Compares `claimed` with the proof, in constant time.
    pub fn is(&self, claimed: &ByteArray<32>) -> bool {
        self.0.finalize() == **claimed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_depends_on_the_nonce_and_on_each_byte() {
        let proof = |nonce: u8, chunks: &[&[u8]]| {
            let mut possession = Possession::new(&[nonce; 32]);
            for chunk in chunks {
                possession.add(chunk);
            }
            assert!(possession.is(&possession.proof()));
            possession.proof()
        };
        let one = proof(1, &[b"one", b"two"]);
        assert_eq!(one, proof(1, &[b"one", b"two"]));
        for other in [proof(2, &[b"one", b"two"]), proof(1, &[b"two", b"one"]), proof(1, &[b"one", b"twp"])] {
            assert_ne!(one, other);
        }
    }
}
