//! Calls of functions and which of them a result answers.

use crate::dialect::gemini::call_id;

/// Where contents stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Place {
    /// In a request that names no context.
    #[default]
    Alone,
    /// In a request that continues a context.
    Beside,
    /// In a context.
    Held,
}

impl Place {
    /// Keeps numbered ids of a context apart from those of requests that continue it.
    fn scope(self) -> Option<&'static str> {
        match self {
            Place::Alone => None,
            Place::Beside => Some("new"),
            Place::Held => Some("held"),
        }
    }
}

/// The calls so far.
#[derive(Debug, Default)]
pub(super) struct Calls {
    place: Place,
    calls: Vec<Call>,
    numbered: u32,
}

#[derive(Debug)]
struct Call {
    id: String,
    /// As the client wrote it.
    given: Option<String>,
    name: String,
    is_answered: bool,
}

/// The call that a result answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// One before it, by its id.
    Known(String),
    /// Perhaps one that the context remembers.
    Remembered,
    /// None.
    Nothing,
}

impl Calls {
    pub(super) fn at(place: Place) -> Self {
        Calls {
            place,
            ..Calls::default()
        }
    }

    /// Notes a call of `name` and makes its id.
    pub(super) fn called(
        &mut self,
        given: Option<String>,
        name: &str,
        signature: Option<&str>,
    ) -> String {
        let id = match &given {
            Some(given) => call_id::of_client(given, signature),
            None => self.numbered_id(signature),
        };
        self.calls.push(Call {
            id: id.clone(),
            given,
            name: name.to_owned(),
            is_answered: false,
        });
        id
    }

    /// Notes a result of `name`.
    pub(super) fn answered(&mut self, given: Option<&str>, name: Option<&str>) -> Answered {
        let mut open = self.calls.iter_mut().filter(|call| !call.is_answered);
        let by_id = given.and_then(|given| {
            open.find(|call| call.id == given || call.given.as_deref() == Some(given))
        });
        let found = match by_id {
            Some(call) => Some(call),
            None => self
                .calls
                .iter_mut()
                .find(|call| !call.is_answered && Some(call.name.as_str()) == name),
        };
        match found {
            Some(call) => {
                call.is_answered = true;
                Answered::Known(call.id.clone())
            }
            None if self.place == Place::Beside => Answered::Remembered,
            None => Answered::Nothing,
        }
    }

    fn numbered_id(&mut self, signature: Option<&str>) -> String {
        loop {
            let id = call_id::encode(None, self.place.scope(), self.numbered, signature);
            self.numbered += 1;
            if self.calls.iter().all(|call| call.id != id) {
                return id;
            }
        }
    }
}
