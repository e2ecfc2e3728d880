//! Choices that a check makes by itself. They are drawn from the input, so that an input is a plain file, means the same
//! every time, and needs nothing beside it to be looked at again.

/// Pseudo-random numbers (splitmix64).
pub(crate) struct Draw(u64);

impl Draw {
    /// Numbers that depend on `seed` only.
    pub(crate) fn new(seed: u64) -> Self {
        Draw(seed)
    }

    /// Numbers that depend on all of `data`.
    pub(crate) fn of(data: &[u8]) -> Self {
        let hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Draw(hash)
    }

    /// The next number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed % end as u64) as usize
    }

    /// One of `choices`, of which there are some.
    pub(crate) fn of_these<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The same bytes as they may arrive: byte by byte, and cut at drawn places, pieces of nothing included.
pub(crate) fn cuttings(data: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut draw = Draw::of(data);
    let mut cuttings = vec![data.chunks(1).collect()];
    for longest in [3, 40, 700] {
        let mut pieces = Vec::new();
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(draw.below(longest + 1).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        cuttings.push(pieces);
    }
    cuttings
}
