//! Stored responses and conversations: what a request of the Responses surface continues, and what is kept of it.
//!
//! A response is kept with its turn's messages and the id of the one before it, so that any of them can be continued,
//! several times, too: a branch is another child. What a request continues is put before its own messages, and the
//! caching is that of implicit contexts: the beginning is found again by what it holds, on every backend.

use std::sync::Arc;

use holdfast_protocol::dialect::responses::client;
use holdfast_protocol::{ApiError, ChatResponse, ContextId, ErrorKind, Message, UnixMillis};
use holdfast_store::{
    Chain, ChainLink, ConversationRecord, HeadChange, ItemsChange, ResponseRecord, StoreError,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;

use crate::app::{Clock, Limits, Store};
use crate::contexts::{store_error, unavailable};

/// Longest conversation that is continued, responses.
const CHAIN_MAX: u32 = 10_000;
/// Responses and conversations removed in one write.
const SWEEP_BATCH: u32 = 200;
/// What the ids of turns begin with that are no responses, but items that a client added to a conversation.
const ITEMS: &str = "items";
/// Longest id that is looked up, bytes.
const ID_BYTES_MAX: usize = 128;

/// All stored responses of all projects.
pub(crate) struct Responses {
    store: Arc<dyn Store>,
    limits: Limits,
    clock: Clock,
    tasks: TaskTracker,
}

/// What a request continues.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// The configured model of the response before; `None`: there is none.
    pub(crate) model: Option<String>,
    /// The context that everything began with.
    pub(crate) context_id: Option<ContextId>,
    /// Messages, oldest first, without those of the context.
    pub(crate) messages: Vec<Message>,
    /// The response before.
    previous: Option<String>,
    /// The conversation, whose latest response it is.
    conversation: Option<String>,
}

/// One turn as it is stored.
#[derive(Serialize, Deserialize)]
struct Turn {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context_id: Option<ContextId>,
    /// Whether the context has remembered the turn itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_session: bool,
    messages: Vec<Message>,
}

/// A response to be kept once it has been answered.
#[derive(Debug)]
pub(crate) struct NewResponse {
    pub(crate) project: String,
    pub(crate) head: client::ResponseHead,
    /// The configured model.
    pub(crate) model: String,
    /// The input's items, with ids.
    pub(crate) input: Vec<Value>,
    /// The messages of the input, without instructions.
    pub(crate) messages: Vec<Message>,
    /// The context that the request named itself, and whether that remembers turns.
    pub(crate) context: Option<(ContextId, bool)>,
    pub(crate) earlier: Earlier,
    /// Until when it is kept; `None`: as long as the configuration says.
    pub(crate) expires_at: Option<UnixMillis>,
}

impl Responses {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        limits: Limits,
        clock: Clock,
        tasks: TaskTracker,
    ) -> Self {
        Responses {
            store,
            limits,
            clock,
            tasks,
        }
    }

    /// The same responses under other limits.
    pub(crate) fn reloaded(&self, limits: Limits) -> Self {
        Responses::new(
            Arc::clone(&self.store),
            limits,
            Arc::clone(&self.clock),
            self.tasks.clone(),
        )
    }

    /// What comes after the response `id`.
    pub(crate) async fn after_response(
        &self,
        project: &str,
        id: &str,
    ) -> Result<Earlier, ApiError> {
        let not_found = || ApiError::previous_response_not_found(id);
        if !is_response(id) {
            return Err(not_found());
        }
        let links = self.chain(project, id, &not_found).await?;
        let mut earlier = Earlier {
            model: links.last().map(|link| link.model.clone()),
            previous: Some(id.to_owned()),
            ..Earlier::default()
        };
        earlier.take(&links)?;
        Ok(earlier)
    }

    /// What comes after the latest response of the conversation `id`.
    pub(crate) async fn after_conversation(
        &self,
        project: &str,
        id: &str,
    ) -> Result<Earlier, ApiError> {
        let record = self.conversation(project, id).await?;
        let mut earlier = Earlier {
            messages: from_json(&record.messages)?,
            conversation: Some(id.to_owned()),
            ..Earlier::default()
        };
        if let Some(head) = record.head {
            let not_found = || ApiError::conversation_not_found(id);
            let links = self.chain(project, &head, &not_found).await?;
            earlier.take(&links)?;
            earlier.previous = Some(head);
        }
        Ok(earlier)
    }

    async fn chain(
        &self,
        project: &str,
        id: &str,
        not_found: &(dyn Fn() -> ApiError + Sync),
    ) -> Result<Vec<ChainLink>, ApiError> {
        let bytes_max = self.limits.body_bytes_max as u64;
        let chain = self
            .store
            .chain(project, id, self.now(), CHAIN_MAX, bytes_max)
            .await
            .map_err(|error| told(error, not_found))?;
        match chain {
            Chain::Whole(links) => Ok(links),
            Chain::TooLong => Err(ApiError::new(
                ErrorKind::OutOfContext,
                "The conversation has become longer than the server takes. Begin another one.",
            )),
        }
    }

    /// Whether the project may keep another response.
    ///
    /// # Errors
    /// It has as many as it may.
    pub(crate) async fn check_room(&self, project: &str) -> Result<(), ApiError> {
        let usage = self
            .store
            .responses_usage(project)
            .await
            .map_err(store_error)?;
        let limits = &self.limits;
        if usage.responses + usage.conversations < limits.responses_per_project_max
            && usage.bytes < limits.response_bytes_per_project_max
        {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorKind::RateLimited,
            "The project has as many stored responses as it may. Delete some, or send `store: false`.",
        ))
    }

    /// Keeps a response that has been answered. On a task of its own, because a write that has begun must come to its
    /// end also when the client has gone.
    pub(crate) async fn keep(
        self: Arc<Self>,
        new: NewResponse,
        answer: Arc<ChatResponse>,
    ) -> Result<(), ApiError> {
        let tasks = self.tasks.clone();
        tasks
            .spawn(async move { self.insert(new, &answer).await })
            .await
            .unwrap_or_else(|_| Err(ApiError::internal()))
    }

    async fn insert(&self, new: NewResponse, answer: &ChatResponse) -> Result<(), ApiError> {
        let now = self.now();
        let mut messages = new.messages;
        messages.extend(answer.choices.first().map(|choice| choice.message.clone()));
        let (context_id, is_session) = new.context.unzip();
        let turn = Turn {
            context_id,
            is_session: is_session.unwrap_or(false),
            messages,
        };
        let body = client::response_object(&new.head, answer);
        let record = ResponseRecord {
            id: new.head.id,
            project: new.project,
            model: new.model,
            previous: new.earlier.previous.clone(),
            conversation: new.earlier.conversation.clone(),
            input: to_json(&new.input)?,
            messages: to_json(&turn)?,
            body: body.to_string().into_bytes(),
            created_at: now,
            expires_at: new.expires_at.unwrap_or_else(|| self.expiry(now)),
        };
        let head = new.earlier.conversation.map(|conversation| HeadChange {
            conversation,
            expected: new.earlier.previous,
            now,
        });
        self.store
            .insert_response(&record, head.as_ref())
            .await
            .map_err(|error| match error {
                StoreError::Conflict => conversation_moved_on(),
                // What it continues has gone while it was answered.
                StoreError::NotFound => {
                    let id = record.previous.as_deref().unwrap_or_default();
                    ApiError::previous_response_not_found(id)
                }
                error => store_error(error),
            })
    }

    /// A stored response.
    pub(crate) async fn get(&self, project: &str, id: &str) -> Result<ResponseRecord, ApiError> {
        let not_found = || ApiError::response_not_found(id);
        if !is_response(id) {
            return Err(not_found());
        }
        self.store
            .response(project, id, self.now())
            .await
            .map_err(|error| told(error, &not_found))
    }

    /// Ends a stored response; answers what was said in it, as far as that can be read.
    pub(crate) async fn delete(&self, project: &str, id: &str) -> Result<Vec<Message>, ApiError> {
        let not_found = || ApiError::response_not_found(id);
        if !is_response(id) {
            return Err(not_found());
        }
        let record = self.store.response(project, id, self.now()).await;
        self.store
            .delete_response(project, id, self.now())
            .await
            .map_err(|error| told(error, &not_found))?;
        let turn = record
            .ok()
            .and_then(|record| serde_json::from_slice::<Turn>(&record.messages).ok());
        Ok(turn.map(|turn| turn.messages).unwrap_or_default())
    }

    /// Makes a conversation.
    pub(crate) async fn create_conversation(
        &self,
        project: &str,
        items: Vec<Value>,
        metadata: &Map<String, Value>,
    ) -> Result<ConversationRecord, ApiError> {
        self.check_room(project).await?;
        let now = self.now();
        let messages = client::messages_of_items(&items)?;
        let record = ConversationRecord {
            items: to_json(&client::with_ids(items, &new_id("item"), 0))?,
            id: new_id("conv"),
            project: project.to_owned(),
            metadata: to_json(metadata)?,
            messages: to_json(&messages)?,
            head: None,
            created_at: now,
            expires_at: self.expiry(now),
        };
        self.store
            .insert_conversation(&record)
            .await
            .map_err(store_error)?;
        Ok(record)
    }

    /// A conversation.
    pub(crate) async fn conversation(
        &self,
        project: &str,
        id: &str,
    ) -> Result<ConversationRecord, ApiError> {
        let not_found = || ApiError::conversation_not_found(id);
        if id.len() > ID_BYTES_MAX {
            return Err(not_found());
        }
        self.store
            .conversation(project, id, self.now())
            .await
            .map_err(|error| told(error, &not_found))
    }

    /// Replaces a conversation's metadata.
    pub(crate) async fn set_metadata(
        &self,
        project: &str,
        id: &str,
        metadata: &Map<String, Value>,
    ) -> Result<ConversationRecord, ApiError> {
        self.conversation(project, id).await?;
        let metadata = to_json(metadata)?;
        self.store
            .set_conversation_metadata(project, id, &metadata, self.now())
            .await
            .map_err(|error| told(error, &|| ApiError::conversation_not_found(id)))
    }

    /// Adds items to a conversation. Returns the new ones.
    pub(crate) async fn add_items(
        &self,
        project: &str,
        id: &str,
        items: Vec<Value>,
    ) -> Result<Vec<Value>, ApiError> {
        self.check_room(project).await?;
        let record = self.conversation(project, id).await?;
        if record.head.is_none() {
            let mut all: Vec<Value> = from_json(&record.items)?;
            let new = client::with_ids(items, &new_id("item"), 0);
            all.extend(new.iter().cloned());
            self.set_items(record, &all).await?;
            return Ok(new);
        }
        // A turn that nobody has answered.
        let turn_id = new_id(ITEMS);
        let new = client::with_ids(items, &turn_id, 0);
        let turn = self.turn_of_items(&record, turn_id, record.head.clone(), &new, &[])?;
        self.insert_last(&record, turn).await?;
        Ok(new)
    }

    /// Takes an item out of a conversation. What came after it stands on copies from then on; the responses themselves
    /// stay as they were.
    pub(crate) async fn delete_item(
        &self,
        project: &str,
        id: &str,
        item_id: &str,
    ) -> Result<ConversationRecord, ApiError> {
        let record = self.conversation(project, id).await?;
        let mut after = Vec::new();
        let mut next = record.head.clone();
        while let Some(response) = next {
            let turn = self.turn(project, &response, id).await?;
            let (input, output) = (items_of(&turn)?, output_of(&turn)?);
            if input
                .iter()
                .chain(&output)
                .any(|item| is_item(item, item_id))
            {
                let left = |items: Vec<Value>| -> Vec<Value> {
                    let items = items.into_iter();
                    items.filter(|item| !is_item(item, item_id)).collect()
                };
                let (input, output) = (left(input), left(output));
                let previous = turn.previous.clone();
                let mut last =
                    self.turn_of_items(&record, new_id(ITEMS), previous, &input, &output)?;
                for turn in after.into_iter().rev() {
                    let copy = ResponseRecord {
                        id: new_id(ITEMS),
                        previous: Some(last.id.clone()),
                        created_at: self.now(),
                        ..turn
                    };
                    self.store
                        .insert_response(&last, None)
                        .await
                        .map_err(store_error)?;
                    last = copy;
                }
                self.insert_last(&record, last).await?;
                return Ok(record);
            }
            next = turn.previous.clone();
            after.push(turn);
        }
        let mut items: Vec<Value> = from_json(&record.items)?;
        let before = items.len();
        items.retain(|item| !is_item(item, item_id));
        if items.len() == before {
            return Err(item_not_found());
        }
        self.set_items(record, &items).await
    }

    /// One item of a conversation.
    pub(crate) async fn item(
        &self,
        project: &str,
        id: &str,
        item_id: &str,
    ) -> Result<Value, ApiError> {
        let items = self.items(project, id).await?;
        let mut items = items.into_iter();
        items
            .find(|item| is_item(item, item_id))
            .ok_or_else(item_not_found)
    }

    async fn set_items(
        &self,
        record: ConversationRecord,
        items: &[Value],
    ) -> Result<ConversationRecord, ApiError> {
        let change = ItemsChange {
            messages: to_json(&client::messages_of_items(items)?)?,
            items: to_json(&items)?,
            expected: record.items,
        };
        self.store
            .set_conversation_items(&record.project, &record.id, &change, self.now())
            .await
            .map_err(|error| match error {
                StoreError::Conflict => conversation_moved_on(),
                error => told(error, &|| ApiError::conversation_not_found(&record.id)),
            })
    }

    fn turn_of_items(
        &self,
        conversation: &ConversationRecord,
        id: String,
        previous: Option<String>,
        input: &[Value],
        output: &[Value],
    ) -> Result<ResponseRecord, ApiError> {
        let now = self.now();
        let turn = Turn {
            context_id: None,
            is_session: false,
            messages: client::messages_of_items(&[input, output].concat())?,
        };
        Ok(ResponseRecord {
            id,
            project: conversation.project.clone(),
            model: String::new(),
            previous,
            conversation: Some(conversation.id.clone()),
            input: to_json(&input)?,
            messages: to_json(&turn)?,
            body: to_json(&serde_json::json!({"output": output}))?,
            created_at: now,
            expires_at: self.expiry(now),
        })
    }

    /// Stores a turn as the conversation's latest.
    async fn insert_last(
        &self,
        conversation: &ConversationRecord,
        turn: ResponseRecord,
    ) -> Result<(), ApiError> {
        let head = HeadChange {
            conversation: conversation.id.clone(),
            expected: conversation.head.clone(),
            now: self.now(),
        };
        self.store
            .insert_response(&turn, Some(&head))
            .await
            .map_err(|error| match error {
                StoreError::Conflict => conversation_moved_on(),
                error => told(error, &|| {
                    ApiError::conversation_not_found(&conversation.id)
                }),
            })
    }

    async fn turn(
        &self,
        project: &str,
        id: &str,
        conversation: &str,
    ) -> Result<ResponseRecord, ApiError> {
        self.store
            .response(project, id, self.now())
            .await
            .map_err(|error| told(error, &|| ApiError::conversation_not_found(conversation)))
    }

    /// All items of a conversation, oldest first.
    pub(crate) async fn items(&self, project: &str, id: &str) -> Result<Vec<Value>, ApiError> {
        let record = self.conversation(project, id).await?;
        let mut items: Vec<Value> = from_json(&record.items)?;
        let mut turns = Vec::new();
        let mut next = record.head;
        while let Some(response) = next.take() {
            let turn = match self.store.response(project, &response, self.now()).await {
                Ok(turn) => turn,
                // Deleted: what came before it is not there to be shown either.
                Err(StoreError::NotFound) => break,
                Err(error) => return Err(store_error(error)),
            };
            turns.push([items_of(&turn)?, output_of(&turn)?].concat());
            next = turn.previous;
            if turns.len() > CHAIN_MAX as usize {
                break;
            }
        }
        items.extend(turns.into_iter().rev().flatten());
        Ok(items)
    }

    /// Removes a conversation; its responses stay.
    pub(crate) async fn delete_conversation(
        &self,
        project: &str,
        id: &str,
    ) -> Result<Vec<Message>, ApiError> {
        let record = self.conversation(project, id).await?;
        self.store
            .delete_conversation(project, id, self.now())
            .await
            .map_err(|error| told(error, &|| ApiError::conversation_not_found(id)))?;
        Ok(serde_json::from_slice(&record.messages).unwrap_or_default())
    }

    /// Removes all that has expired by now; returns how many.
    pub(crate) async fn sweep(&self) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let batch = self.store.sweep_responses(self.now(), SWEEP_BATCH).await?;
            removed += batch;
            if batch < u64::from(SWEEP_BATCH) {
                return Ok(removed);
            }
        }
    }

    fn expiry(&self, now: UnixMillis) -> UnixMillis {
        now.saturating_add(i64::from(self.limits.response_seconds).saturating_mul(1000))
    }

    fn now(&self) -> UnixMillis {
        (self.clock)()
    }
}

impl Earlier {
    fn take(&mut self, links: &[ChainLink]) -> Result<(), ApiError> {
        for link in links {
            let turn: Turn = from_json(&link.messages)?;
            if turn.is_session {
                return Err(ApiError::invalid(
                    "previous_response_id",
                    "was answered in a session, which remembers it: go on with the session's `context_id`",
                ));
            }
            if turn.context_id.is_some() {
                self.context_id = turn.context_id;
            }
            self.messages.extend(turn.messages);
        }
        Ok(())
    }

    /// Whether there is anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.context_id.is_none()
    }
}

/// Whether it can be a response's id.
fn is_response(id: &str) -> bool {
    id.len() <= ID_BYTES_MAX && id.starts_with("resp_")
}

/// A new id that nobody can guess.
pub(crate) fn new_id(kind: &str) -> String {
    let random: [u8; 24] = rand::rng().random();
    format!("{kind}_{}", data_encoding::HEXLOWER.encode(&random))
}

fn items_of(turn: &ResponseRecord) -> Result<Vec<Value>, ApiError> {
    from_json(&turn.input)
}

fn output_of(turn: &ResponseRecord) -> Result<Vec<Value>, ApiError> {
    let mut body: Value = from_json(&turn.body)?;
    Ok(match body.get_mut("output").map(Value::take) {
        Some(Value::Array(output)) => output,
        _ => Vec::new(),
    })
}

fn is_item(item: &Value, id: &str) -> bool {
    item.get("id").and_then(Value::as_str) == Some(id)
}

fn item_not_found() -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        "There is no such item in the conversation.",
    )
    .with_param("item_id")
}

fn conversation_moved_on() -> ApiError {
    let mut error = ApiError::new(
        ErrorKind::ContextBusy,
        "Another request has been answered in this conversation meanwhile. Send yours again.",
    )
    .with_param("conversation");
    error.should_retry = Some(true);
    error
}

fn told(error: StoreError, not_found: &(dyn Fn() -> ApiError + Sync)) -> ApiError {
    match error {
        StoreError::NotFound => not_found(),
        StoreError::Unavailable(error) => {
            tracing::error!(%error, "the store failed");
            unavailable()
        }
        error => store_error(error),
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|_| ApiError::internal())
}

fn from_json<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|_| {
        tracing::error!("a stored response can't be read");
        ApiError::internal()
    })
}
