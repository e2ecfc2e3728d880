//! What a request may use, before anybody knows what it does.

/// What is reserved for the answer to a request that sets no bound, tokens. The model's own default may be a hundred times
/// what it ever says.
const ANSWER_TOKENS: u64 = 4096;

/// Tokens that a request may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    /// Input that is probably in no cache.
    pub(crate) input: u64,
    /// What it may generate at most.
    pub(crate) output: u64,
    /// Whether the client has said so. If not, less than that is reserved.
    pub(crate) is_output_given: bool,
}

impl Demand {
    /// Of a request that generates nothing.
    pub(crate) fn of_input(input: u64) -> Self {
        Demand {
            input,
            output: 0,
            is_output_given: true,
        }
    }

    /// What is reserved where `limit` is the smallest. Only what the client asks for itself can be too much for ever.
    pub(super) fn tokens(self, limit: u64) -> i64 {
        let output = match self.is_output_given {
            true => self.output,
            false => {
                let room = limit.saturating_sub(self.input);
                self.output.min(ANSWER_TOKENS).min(room)
            }
        };
        signed(self.input.saturating_add(output))
    }
}

/// As what is counted, and no more than anybody could mean.
pub(super) fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX).min(1 << 50)
}
