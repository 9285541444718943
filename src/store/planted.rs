//! Mistakes that tests plant in a store, to prove that such a mistake would be noticed.

/// One mistake; a store that is not under test has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The collector waits for no push.
    NoLeaseWait,
    /// Pushes are told that condemned chunks are known.
    CondemnedShown,
    /// What was appended is called durable without a sync.
    NoSync,
    /// A condemned chunk that a push brings again stays condemned.
    BroughtAgainInVain,
    /// A pack whose chunks all lie elsewhere too goes before the other copies are durable.
    EmptiedUnsynced,
    /// A push whose lease lapsed checks its chunks without holding them.
    CheckedUnheld,
    /// A push whose lease lapsed commits without looking at its chunks again.
    LapsedUnchecked,
    /// The proxy rebuilds every archive as another.
    OtherArchives,
}
