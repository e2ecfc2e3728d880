//! What SQLite's errors mean to a caller. No text from a row gets into an error.

use sqlx::error::DatabaseError;

use crate::StoreError;

/// The error of any statement but those whose constraint errors mean something to the caller.
pub(super) fn failure(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) => database_failure(&*error),
        sqlx::Error::ColumnDecode { index, .. } => {
            StoreError::Corrupt(format!("column {index} has the wrong type"))
        }
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. } => {
            StoreError::Corrupt("a column is missing or has the wrong type".to_owned())
        }
        sqlx::Error::PoolTimedOut => StoreError::Unavailable("the database is too busy".to_owned()),
        sqlx::Error::PoolClosed => StoreError::Unavailable("the database is closed".to_owned()),
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// For inserts: an id (or hash) that exists is the caller's `Conflict`, a missing parent its `NotFound`.
pub(super) fn insert_failure(error: sqlx::Error) -> StoreError {
    match error.as_database_error().map(|error| error.kind()) {
        Some(sqlx::error::ErrorKind::UniqueViolation) => StoreError::Conflict,
        Some(sqlx::error::ErrorKind::ForeignKeyViolation) => StoreError::NotFound,
        _ => failure(error),
    }
}

/// Result codes: <https://sqlite.org/rescode.html>.
fn database_failure(error: &dyn DatabaseError) -> StoreError {
    let code = error
        .code()
        .and_then(|code| code.parse::<u32>().ok())
        .unwrap_or_default();
    // The low byte is the primary code.
    let unavailable = match code & 0xff {
        5 | 6 => "another process has locked the database",
        8 => "the database is read-only",
        10 => "reading or writing the disk failed",
        13 => "the disk is full",
        14 => "the database file can't be opened",
        11 => return StoreError::Corrupt(format!("the database file is damaged (SQLite {code})")),
        26 => return StoreError::Corrupt("the database file is not a SQLite database".to_owned()),
        // A statement that does not fit the tables, or a value that no version of ours would store.
        1 | 17 | 19 | 20 => {
            return StoreError::Corrupt(format!(
                "the database's tables are not as expected (SQLite {code})"
            ));
        }
        _ => "SQLite failed",
    };
    StoreError::Unavailable(format!("{unavailable} (SQLite {code})"))
}
