//! `cachedContents`: named prefixes with a fixed end.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::{Status, error, invalid};
use super::messages::CACHED_CONTENT;
use super::prompt::{self, list};
use super::{Call, Checked, Gemini, Host, proto};
use crate::{Block, Charge, RawRequest, Reply, hash_hex};

/// Lifetime where none is asked for, milliseconds (facts 2.4).
const TTL_DEFAULT_MS: i64 = 3_600_000;
/// Longest display name, characters (facts 2.4).
const DISPLAY_NAME_MAX: usize = 128;
const PAGE_SIZE_DEFAULT: usize = 50;
const PAGE_SIZE_MAX: usize = 1000;

/// A cached prefix.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    id: String,
    account: String,
    scope: String,
    /// The model's last name (`gemini-...`), by which two ways to write it are compared.
    pub(super) model: String,
    /// As the create call wrote it.
    model_written: String,
    display_name: Option<String>,
    created_ms: i64,
    updated_ms: i64,
    expires_ms: i64,
    pub(super) tokens: u64,
    pub(super) contents: Vec<Value>,
    pub(super) tools: Value,
    pub(super) tool_config: Value,
    settled_until_ms: i64,
}

/// All caches of an emulator, in the order of their making.
#[derive(Debug, Default)]
pub(super) struct Caches {
    live: BTreeMap<u64, Cache>,
    /// Dropped at a time that is known only when the next request tells what time it is.
    evicted: Vec<Cache>,
    unbilled: Vec<Charge>,
}

impl Caches {
    /// Ends what has expired.
    pub(super) fn sweep(&mut self, now_ms: i64) {
        let expired: Vec<u64> = self
            .live
            .iter()
            .filter(|(_, cache)| cache.expires_ms <= now_ms)
            .map(|(number, _)| *number)
            .collect();
        for number in expired {
            self.end(number, now_ms);
        }
        for cache in std::mem::take(&mut self.evicted) {
            self.charge_storage(cache, now_ms);
        }
    }

    /// Forgets everything.
    pub(super) fn evict_all(&mut self) {
        self.evicted
            .extend(std::mem::take(&mut self.live).into_values());
    }

    /// Storage to be put on the bill: of ended caches, and of live ones up to now where `is_settlement`.
    pub(super) fn storage_charges(&mut self, now_ms: i64, is_settlement: bool) -> Vec<Charge> {
        self.sweep(now_ms);
        if is_settlement {
            let live: Vec<Cache> = self.live.values().cloned().collect();
            for cache in live {
                self.charge_storage(cache, now_ms);
            }
            for cache in self.live.values_mut() {
                cache.settled_until_ms = now_ms;
            }
        }
        std::mem::take(&mut self.unbilled)
    }

    /// The live cache of that id in that scope.
    pub(super) fn get(&self, scope: &str, id: &str) -> Option<&Cache> {
        self.number(scope, id).map(|number| &self.live[&number])
    }

    fn number(&self, scope: &str, id: &str) -> Option<u64> {
        self.live
            .iter()
            .find(|(_, cache)| cache.id == id && cache.scope == scope)
            .map(|(number, _)| *number)
    }

    fn end(&mut self, number: u64, now_ms: i64) {
        if let Some(cache) = self.live.remove(&number) {
            self.charge_storage(cache, now_ms);
        }
    }

    fn charge_storage(&mut self, cache: Cache, now_ms: i64) {
        let until_ms = now_ms.min(cache.expires_ms);
        let held_ms = u64::try_from(until_ms - cache.settled_until_ms).unwrap_or(0);
        if held_ms > 0 {
            self.unbilled.push(Charge {
                kind: "storage".to_owned(),
                account: cache.account,
                model: cache.model,
                token_milliseconds: cache.tokens * held_ms,
                reported: true,
                ..Charge::default()
            });
        }
    }
}

impl Gemini {
    /// `POST`, `GET`, `PATCH` or `DELETE` on the collection (`id` empty) or on one.
    pub(super) fn cached_contents(
        &self,
        request: &RawRequest,
        call: &Call<'_>,
        id: &str,
    ) -> Checked<Reply> {
        match (request.method.as_str(), id) {
            ("POST", "") => self.create(request, call),
            ("GET", "") => self.list(request, call),
            ("GET", id) => {
                let state = self.state.lock().unwrap();
                let cache = state
                    .caches
                    .get(&call.scope, id)
                    .ok_or_else(|| self.no_cache(id))?;
                Ok(Reply::json(200, &self.cache_json(cache)))
            }
            ("PATCH", id) if !id.is_empty() => self.patch(request, call, id),
            ("DELETE", id) if !id.is_empty() => {
                let caches = &mut self.state.lock().unwrap().caches;
                let number = caches
                    .number(&call.scope, id)
                    .ok_or_else(|| self.no_cache(id))?;
                caches.end(number, call.desk.now_ms);
                Ok(Reply::json(200, &json!({})))
            }
            _ => Err(Box::new(super::no_route())),
        }
    }

    /// What a request gets that names a cache which is absent, expired or somebody else's.
    pub(super) fn no_cache(&self, id: &str) -> Box<Reply> {
        Box::new(match self.host {
            Host::GeminiApi => error(
                Status::PermissionDenied,
                "CachedContent not found (or permission denied)",
            ),
            Host::Vertex => error(
                Status::NotFound,
                &format!("Not found: cached content metadata for {id}."),
            ),
        })
    }

    fn create(&self, request: &RawRequest, call: &Call<'_>) -> Checked<Reply> {
        const REQUEST: &str = "CreateCachedContentRequest";
        let body = request
            .json()
            .filter(Value::is_object)
            .ok_or_else(|| Box::new(proto::no_json()))?;
        let body = proto::read(&CACHED_CONTENT, &body, self.host, "cached_content")?;
        let written = body["model"].as_str().unwrap_or_default();
        let model = self.model_of_cache(call, written)?;
        let display_name = body["displayName"].as_str().map(str::to_owned);
        if display_name
            .as_ref()
            .is_some_and(|name| name.chars().count() > DISPLAY_NAME_MAX)
        {
            return invalid(format!(
                "* {REQUEST}.cached_content.display_name: must be at most {DISPLAY_NAME_MAX} characters.\n"
            ));
        }
        prompt::check_system(REQUEST, &body["systemInstruction"], self.host)?;
        let contents = list(&body["contents"]).to_vec();
        prompt::check_contents(REQUEST, &[], &contents, self.strictness(&model))?;
        prompt::check_tools(REQUEST, &body["tools"], &body["toolConfig"], true)?;
        let expires_ms =
            expiry(&body, call.desk.now_ms)?.unwrap_or(call.desk.now_ms + TTL_DEFAULT_MS);
        let tokens = prompt::blocks(&body)
            .iter()
            .map(|block: &Block| block.tokens)
            .sum();
        let tokens_min = self.min_tokens_of(&model);
        if tokens < tokens_min {
            return invalid(format!(
                "Cached content is too small. total_token_count={tokens}, min_total_token_count={tokens_min}"
            ));
        }
        let number = call.desk.next_id();
        let cache = Cache {
            id: match self.host {
                Host::GeminiApi => hash_hex(&format!("{} cache {number}", call.scope)),
                Host::Vertex => (4_000_000_000_000_000_000 + number).to_string(),
            },
            account: call.account.clone(),
            scope: call.scope.clone(),
            model: model.clone(),
            model_written: written.to_owned(),
            display_name,
            created_ms: call.desk.now_ms,
            updated_ms: call.desk.now_ms,
            expires_ms,
            tokens,
            contents,
            tools: body["tools"].clone(),
            tool_config: body["toolConfig"].clone(),
            settled_until_ms: call.desk.now_ms,
        };
        let reply = Reply::json(200, &self.cache_json(&cache)).charge(Charge {
            kind: "create".to_owned(),
            account: call.account.clone(),
            model,
            uncached_input: tokens,
            ..Charge::default()
        });
        self.state.lock().unwrap().caches.live.insert(number, cache);
        Ok(reply)
    }

    fn list(&self, request: &RawRequest, call: &Call<'_>) -> Checked<Reply> {
        let size = match request.query_value("pageSize").map(str::parse::<usize>) {
            None | Some(Ok(0)) => PAGE_SIZE_DEFAULT,
            Some(Ok(size)) => size.min(PAGE_SIZE_MAX),
            Some(Err(_)) => return invalid("Invalid value at 'page_size' (TYPE_INT32)"),
        };
        let after = match request
            .query_value("pageToken")
            .filter(|token| !token.is_empty())
        {
            None => 0,
            Some(token) => match token
                .strip_prefix("page-")
                .and_then(|number| number.parse().ok())
            {
                Some(number) => number,
                None => return invalid("Invalid page token."),
            },
        };
        let state = self.state.lock().unwrap();
        let mut rest = state
            .caches
            .live
            .range(after + 1..)
            .filter(|(_, cache)| cache.scope == call.scope)
            .peekable();
        let mut page = Vec::new();
        let mut last = after;
        while page.len() < size
            && let Some((number, cache)) = rest.next()
        {
            page.push(self.cache_json(cache));
            last = *number;
        }
        // An empty list is left out, as proto-JSON does with every default.
        let mut reply = json!({});
        if !page.is_empty() {
            reply["cachedContents"] = Value::Array(page);
        }
        if rest.peek().is_some() {
            reply["nextPageToken"] = json!(format!("page-{last}"));
        }
        Ok(Reply::json(200, &reply))
    }

    fn patch(&self, request: &RawRequest, call: &Call<'_>, id: &str) -> Checked<Reply> {
        let body = request
            .json()
            .filter(Value::is_object)
            .ok_or_else(|| Box::new(proto::no_json()))?;
        let body = proto::read(&CACHED_CONTENT, &body, self.host, "cached_content")?;
        let mask: Option<Vec<String>> = request
            .query_value("updateMask")
            .or_else(|| request.query_value("update_mask"))
            .map(|mask| {
                super::percent_decoded(mask)
                    .split(',')
                    .map(|field| proto::camel(field.trim()))
                    .collect()
            });
        let fields: Vec<String> = match mask {
            Some(mask) => mask,
            None => body
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.clone())
                .filter(|name| name != "name")
                .collect(),
        };
        if fields.is_empty()
            || fields
                .iter()
                .any(|field| field != "ttl" && field != "expireTime")
        {
            return invalid(
                "Only expiration (ttl or expire_time) can be updated in CachedContent.",
            );
        }
        if fields.iter().any(|field| body[field.as_str()].is_null()) {
            return invalid(
                "* UpdateCachedContentRequest.cached_content: fields of update_mask are missing.\n",
            );
        }
        let caches = &mut self.state.lock().unwrap().caches;
        let number = caches
            .number(&call.scope, id)
            .ok_or_else(|| self.no_cache(id))?;
        let expires_ms = expiry(&body, call.desk.now_ms)?;
        let cache = caches.live.get_mut(&number).unwrap();
        if let Some(expires_ms) = expires_ms {
            cache.expires_ms = expires_ms;
        }
        cache.updated_ms = call.desk.now_ms;
        Ok(Reply::json(200, &self.cache_json(cache)))
    }

    /// What can be read of a cache: not its contents.
    fn cache_json(&self, cache: &Cache) -> Value {
        let prefix = match self.host {
            Host::GeminiApi => String::new(),
            Host::Vertex => {
                let (project, location) = cache
                    .scope
                    .split_once('/')
                    .unwrap_or((&cache.scope, "global"));
                format!("projects/{project}/locations/{location}/")
            }
        };
        let mut value = json!({
            "name": format!("{prefix}cachedContents/{}", cache.id),
            "model": cache.model_written,
            "createTime": time(cache.created_ms),
            "updateTime": time(cache.updated_ms),
            "expireTime": time(cache.expires_ms),
            "usageMetadata": {"totalTokenCount": cache.tokens},
        });
        if let Some(name) = &cache.display_name {
            value["displayName"] = json!(name);
        }
        value
    }

    fn model_of_cache(&self, call: &Call<'_>, written: &str) -> Checked<String> {
        let name = match self.host {
            Host::GeminiApi => written.strip_prefix("models/"),
            Host::Vertex => {
                let (project, location) = call.scope.split_once('/').unwrap_or_default();
                written.strip_prefix(&format!(
                    "projects/{project}/locations/{location}/publishers/google/models/"
                ))
            }
        };
        let Some(name) = name.filter(|name| !name.is_empty() && !name.contains('/')) else {
            return invalid(
                "* CreateCachedContentRequest.cached_content.model: unexpected model name format\n",
            );
        };
        self.known_model(name, "createCachedContent")?;
        Ok(name.to_owned())
    }
}

/// The end that `ttl` or `expireTime` asks for, milliseconds since the Unix epoch.
fn expiry(body: &Value, now_ms: i64) -> Checked<Option<i64>> {
    let (ttl, expire_time) = (body["ttl"].as_str(), body["expireTime"].as_str());
    let expires_ms = match (ttl, expire_time) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return invalid(
                "Invalid value at 'cached_content' (oneof), oneof field 'expiration' is already set. Cannot set \
                 'expireTime'",
            );
        }
        (Some(ttl), None) => match ttl
            .strip_suffix('s')
            .and_then(|seconds| seconds.parse::<f64>().ok())
        {
            Some(seconds) if seconds.is_finite() && seconds.abs() <= 315_576_000_000.0 => {
                #[allow(clippy::cast_possible_truncation)]
                let ms = (seconds * 1000.0) as i64;
                now_ms + ms
            }
            _ => {
                return invalid(
                    "Invalid value at 'cached_content.ttl' (type.googleapis.com/google.protobuf.Duration), Field \
                     'ttl', Illegal duration format; duration must end with 's'",
                );
            }
        },
        (None, Some(text)) => match text.parse::<Timestamp>() {
            Ok(time) => time.as_millisecond(),
            Err(_) => {
                return invalid(
                    "Invalid value at 'cached_content.expire_time' (type.googleapis.com/google.protobuf.Timestamp), \
                     Field 'expireTime', Invalid data format for timestamp",
                );
            }
        },
    };
    if expires_ms <= now_ms {
        return invalid("CachedContent expiration must be in the future.");
    }
    Ok(Some(expires_ms))
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap().to_string()
}
