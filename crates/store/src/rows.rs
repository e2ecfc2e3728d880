//! Rows of either database, read by column: what a record is made of is said once for both.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod responses;

use crate::StoreError;
use crate::columns::wrong_value;

/// A row. Each method reads a column of one kind; one that is of another kind is `Corrupt`.
pub(crate) trait Columns {
    /// An id or a word of the gateway's own.
    fn word(&self, column: &str) -> Result<String, StoreError>;

    /// The same, where there may be none.
    fn optional_word(&self, column: &str) -> Result<Option<String>, StoreError>;

    /// A text that somebody else has written.
    fn text(&self, column: &str) -> Result<String, StoreError>;

    /// Bytes.
    fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError>;

    /// A number, or a time.
    fn number(&self, column: &str) -> Result<i64, StoreError>;

    /// The same, where there may be none.
    fn optional_number(&self, column: &str) -> Result<Option<i64>, StoreError>;

    /// A truth value.
    fn flag(&self, column: &str) -> Result<bool, StoreError>;

    /// A number of things.
    fn count(&self, column: &str) -> Result<u64, StoreError> {
        u64::try_from(self.number(column)?).map_err(|_| wrong_value(column))
    }
}
