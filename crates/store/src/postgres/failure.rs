//! What PostgreSQL's errors mean to a caller. No text of the server gets into an error, because it can quote rows.

use sqlx::error::DatabaseError;

use crate::StoreError;

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Others were in the way, and nothing of the transaction was done: the same again may work.
    InTheWay(StoreError),
    /// Everything else.
    Final(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Final(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        // `serialization_failure` and `deadlock_detected`.
        let is_in_the_way = matches!(code.as_deref(), Some("40001" | "40P01"));
        let error = failure(error);
        if is_in_the_way {
            Failure::InTheWay(error)
        } else {
            Failure::Final(error)
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let (Failure::InTheWay(error) | Failure::Final(error)) = failure;
        error
    }
}

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
        sqlx::Error::Io(error) => {
            StoreError::Unavailable(format!("the database can't be reached: {error}"))
        }
        sqlx::Error::Tls(error) => {
            StoreError::Unavailable(format!("no encrypted connection to the database: {error}"))
        }
        // The others' texts can have parts of the connection's settings in them.
        _ => StoreError::Unavailable("talking to the database failed".to_owned()),
    }
}

/// For inserts: an id (or hash) that exists is the caller's `Conflict`, a missing parent its `NotFound`.
pub(super) fn insert_failure(error: sqlx::Error) -> Failure {
    match error.as_database_error().map(|error| error.kind()) {
        Some(sqlx::error::ErrorKind::UniqueViolation) => StoreError::Conflict.into(),
        Some(sqlx::error::ErrorKind::ForeignKeyViolation) => StoreError::NotFound.into(),
        _ => error.into(),
    }
}

/// Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn database_failure(error: &dyn DatabaseError) -> StoreError {
    let code = error.code().unwrap_or_default();
    let unavailable = match &*code {
        // Such a text is in no column, so nothing is stored under it.
        "22021" => return StoreError::NotFound,
        "25006" => "the database is read-only",
        "25P03" | "57014" => "the database took too long",
        "28000" | "28P01" => "the database refuses the user or the password",
        "3D000" => "there is no such database on the server",
        "3F000" => "there is no schema for tables in the database",
        "40001" | "40P01" => "too many others write at the same time",
        "42501" => "the database's user lacks a permission",
        "53100" => "the disk of the database is full",
        "53200" => "the database is out of memory",
        "53300" => "the database has too many connections",
        "55P03" => "another program has locked a row for too long",
        "57P01" | "57P02" | "57P03" => "the database is starting or stopping",
        "58030" => "the database failed to read or write its disk",
        "42P07" | "42723" => {
            return StoreError::Corrupt(
                "the database has tables of another program with the names of ours".to_owned(),
            );
        }
        code if code.starts_with("XX") => {
            return StoreError::Corrupt(format!("the database is damaged (PostgreSQL {code})"));
        }
        // A statement that does not fit the tables, or a value that no version of ours would store.
        code if code.starts_with("22") || code.starts_with("23") || code.starts_with("42") => {
            return StoreError::Corrupt(format!(
                "the database's tables are not as expected (PostgreSQL {code})"
            ));
        }
        _ => "PostgreSQL failed",
    };
    StoreError::Unavailable(format!("{unavailable} (PostgreSQL {code})"))
}
