//! Reading what an operator has sent. Each error names its field, and an unknown field is one: a limit that is misspelt
//! must not become no limit.

use holdfast_protocol::price::{Currency, Decimal};
use holdfast_protocol::{ApiError, ErrorKind};
use holdfast_store::{Budget, BudgetPeriod, KeyScope, LimitSettings};
use serde_json::{Map, Value};

/// Longest label or display name, characters.
const LABEL_CHARACTERS_MAX: usize = 100;
const PROJECT_BYTES_MAX: usize = 63;
const MODELS_MAX: usize = 200;
const MODEL_CHARACTERS_MAX: usize = 256;
/// Beyond this a number is no limit that anybody meant, and times in milliseconds would not fit.
const NUMBER_MAX: u64 = 1_000_000_000_000;

/// Budgets of one key or project: the three periods in a few currencies.
const BUDGETS_MAX: usize = 12;

/// Largest limit of a budget. What is spent in a day is counted up to here.
const AMOUNT_MAX: Decimal = Decimal::from_parts(9_000_000, 0, 0, false, 0);

/// Limits of keys and of projects.
pub(super) const LIMITS: &[&str] = &[
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_requests",
    "contexts",
    "context_tokens",
];

/// The fields of a request, all of them known ones.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What names in errors begin with.
    path: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) fn of(request: &'a Value, known: &[&str]) -> Result<Self, ApiError> {
        let map = request.as_object().ok_or_else(|| {
            ApiError::new(ErrorKind::InvalidJson, "The body must be a JSON object.")
        })?;
        let fields = Fields { map, path: "" };
        fields.check(known)?;
        Ok(fields)
    }

    fn check(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.map.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(unknown) => Err(self.invalid(
                unknown,
                format!("is no field here; the fields are {}", known.join(", ")),
            )),
        }
    }

    fn invalid(&self, name: &str, problem: impl std::fmt::Display) -> ApiError {
        ApiError::invalid(&format!("{}{name}", self.path), problem)
    }

    /// Whether it is there and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// `None` when it is not there, `Some(None)` when it is null.
    fn text(&self, name: &str) -> Result<Option<Option<&'a str>>, ApiError> {
        match self.map.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) => Ok(Some(Some(text))),
            Some(_) => Err(self.invalid(name, "must be a string")),
        }
    }

    /// A text for people; null empties it.
    pub(super) fn label(&self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(label) = self.text(name)? else {
            return Ok(None);
        };
        let label = label.unwrap_or_default();
        if label.chars().count() > LABEL_CHARACTERS_MAX {
            return Err(self.invalid(
                name,
                format!("may have at most {LABEL_CHARACTERS_MAX} characters"),
            ));
        }
        Ok(Some(label.to_owned()))
    }

    /// The name of a project, if it is there and not empty.
    pub(super) fn project(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        let Some(project) = self.text(name)?.flatten().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if project.len() <= PROJECT_BYTES_MAX && project.bytes().all(is_fit) {
            return Ok(Some(project));
        }
        Err(self.invalid(
            name,
            format!(
                "must have only lower-case letters, digits and `-`, at most {PROJECT_BYTES_MAX}"
            ),
        ))
    }

    /// The name of a model; null takes it away.
    pub(super) fn model(&self, name: &str) -> Result<Option<Option<String>>, ApiError> {
        let Some(model) = self.text(name)? else {
            return Ok(None);
        };
        let model = model.filter(|model| !model.is_empty());
        if model.is_some_and(|model| model.chars().count() > MODEL_CHARACTERS_MAX) {
            return Err(self.invalid(
                name,
                format!("may have at most {MODEL_CHARACTERS_MAX} characters"),
            ));
        }
        Ok(Some(model.map(str::to_owned)))
    }

    /// A whole number of at least `min`; null takes it away.
    pub(super) fn number(&self, name: &str, min: u64) -> Result<Option<Option<u64>>, ApiError> {
        match self.map.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => value
                .as_u64()
                .filter(|number| (min..=NUMBER_MAX).contains(number))
                .map(|number| Some(Some(number)))
                .ok_or_else(|| {
                    self.invalid(
                        name,
                        format!("must be a whole number from {min} to {NUMBER_MAX}"),
                    )
                }),
        }
    }

    fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, ApiError> {
        match self.map.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(Vec::new())),
            Some(Value::Array(values)) => (0..)
                .zip(values)
                .map(|(index, value): (usize, _)| {
                    value.as_str().ok_or_else(|| {
                        self.invalid(&format!("{name}[{index}]"), "must be a string")
                    })
                })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(self.invalid(name, "must be an array of strings")),
        }
    }

    /// Names of models, or beginnings followed by `*`; null means every model.
    pub(super) fn models(&self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let Some(models) = self.texts(name)? else {
            return Ok(None);
        };
        if models.len() > MODELS_MAX {
            return Err(self.invalid(name, format!("may have at most {MODELS_MAX} entries")));
        }
        for (index, model) in models.iter().enumerate() {
            let is_fit = (1..=MODEL_CHARACTERS_MAX).contains(&model.chars().count())
                && !model.strip_suffix('*').unwrap_or(model).contains('*');
            if !is_fit {
                return Err(self.invalid(
                    &format!("{name}[{index}]"),
                    "must be a model's name, or the beginning of names followed by one `*`",
                ));
            }
        }
        Ok(Some(models.into_iter().map(str::to_owned).collect()))
    }

    /// Sorted, without duplicates; `None` when there are none.
    pub(super) fn scopes(&self, name: &str) -> Result<Option<Vec<KeyScope>>, ApiError> {
        let words = self.texts(name)?.filter(|words| !words.is_empty());
        let Some(words) = words else {
            return Ok(None);
        };
        let mut scopes = Vec::new();
        for (index, word) in words.into_iter().enumerate() {
            scopes.push(KeyScope::parse(word).ok_or_else(|| {
                let known = KeyScope::ALL.map(|scope| format!("`{}`", scope.as_str()));
                let problem = format!("must be one of {}", known.join(", "));
                self.invalid(&format!("{name}[{index}]"), problem)
            })?);
        }
        scopes.sort();
        scopes.dedup();
        Ok(Some(scopes))
    }

    /// The budgets of a key or a project, all of them anew; null means none.
    pub(super) fn budgets(&self, name: &str) -> Result<Option<Vec<Budget>>, ApiError> {
        let budgets = match self.map.get(name) {
            None => return Ok(None),
            Some(Value::Null) => return Ok(Some(Vec::new())),
            Some(Value::Array(budgets)) => budgets,
            Some(_) => return Err(self.invalid(name, "must be an array of objects")),
        };
        if budgets.len() > BUDGETS_MAX {
            return Err(self.invalid(name, format!("may have at most {BUDGETS_MAX} entries")));
        }
        let mut read: Vec<Budget> = Vec::new();
        for (index, budget) in budgets.iter().enumerate() {
            let budget = self.budget(&format!("{name}[{index}]"), budget)?;
            let is_there =
                |other: &Budget| (other.period, other.currency) == (budget.period, budget.currency);
            if read.iter().any(is_there) {
                return Err(self.invalid(
                    &format!("{name}[{index}]"),
                    "has the period and currency of one before it",
                ));
            }
            read.push(budget);
        }
        Ok(Some(read))
    }

    fn budget(&self, name: &str, budget: &Value) -> Result<Budget, ApiError> {
        let Some(map) = budget.as_object() else {
            return Err(self.invalid(name, "must be an object"));
        };
        let known = ["period", "currency", "limit", "soft_limit"];
        if let Some(unknown) = map.keys().find(|field| !known.contains(&field.as_str())) {
            return Err(self.invalid(
                &format!("{name}.{unknown}"),
                format!("is no field here; the fields are {}", known.join(", ")),
            ));
        }
        let wrong = |field: &str, problem: &str| self.invalid(&format!("{name}.{field}"), problem);
        let word = map.get("period").and_then(Value::as_str);
        let period = word.and_then(BudgetPeriod::parse);
        let currency = match map.get("currency") {
            None | Some(Value::Null) => Some(Currency::USD),
            Some(code) => code.as_str().and_then(|code| code.parse().ok()),
        };
        let amount = |field: &str| -> Result<Option<Decimal>, ApiError> {
            let text = match map.get(field) {
                None | Some(Value::Null) => return Ok(None),
                Some(Value::String(text)) => text.trim().to_owned(),
                Some(Value::Number(number)) => number.to_string(),
                Some(_) => String::new(),
            };
            let amount = Decimal::from_str_exact(&text).ok();
            let amount = amount.filter(|it| (Decimal::ZERO..=AMOUNT_MAX).contains(it));
            let problem = "must be an amount such as \"100.50\", from 0 to 9000000";
            amount.map(Some).ok_or_else(|| wrong(field, problem))
        };
        let (hard, soft) = (amount("limit")?, amount("soft_limit")?);
        if hard.is_none() && soft.is_none() {
            return Err(self.invalid(name, "needs `limit`, `soft_limit` or both"));
        }
        Ok(Budget {
            period: period.ok_or_else(|| wrong("period", "must be daily, monthly or total"))?,
            currency: currency
                .ok_or_else(|| wrong("currency", "must be three capital letters such as USD"))?,
            hard,
            soft,
        })
    }

    /// `limits` with what the request says about them: a number sets one, null takes one away, and null for all of them
    /// takes all away.
    pub(super) fn limits(
        &self,
        known: &[&str],
        mut limits: LimitSettings,
    ) -> Result<LimitSettings, ApiError> {
        let map = match self.map.get("limits") {
            None => return Ok(limits),
            Some(Value::Null) => return Ok(LimitSettings::default()),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(self.invalid("limits", "must be an object")),
        };
        let fields = Fields {
            map,
            path: "limits.",
        };
        fields.check(known)?;
        for (name, limit) in [
            ("requests_per_minute", &mut limits.requests_per_minute),
            ("tokens_per_minute", &mut limits.tokens_per_minute),
            ("concurrent_requests", &mut limits.concurrent_requests),
            ("contexts", &mut limits.contexts),
            ("context_tokens", &mut limits.context_tokens),
        ] {
            if let Some(given) = fields.number(name, 1)? {
                *limit = given;
            }
        }
        Ok(limits)
    }
}
