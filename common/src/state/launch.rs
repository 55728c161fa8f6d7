//! A launch, and the check of what a client sends for a new one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::SystemTime;

/// A launch, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Its number: 1 for the first, then one more for each.
    pub flight_number: i64,
    /// The rest, which the client chose.
    #[serde(flatten)]
    pub chosen: NewLaunch,
}

/// A launch without a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLaunch {
    /// The name of the mission.
    pub mission: String,
    /// The rocket.
    pub rocket: String,
    /// The day, as `2030-12-27`.
    pub launch_date: String,
    /// The planet.
    pub target: String,
    /// Who pays.
    pub customers: Vec<String>,
    /// It is still to come: neither flown nor aborted.
    pub upcoming: bool,
    /// It has not failed.
    pub success: bool,
}

/// The longest document that describes a launch, in bytes: a page of the usual length can be answered whatever is saved.
pub const MAX_DOCUMENT: usize = 2 * 1024;
const MAX_TEXT: usize = 200;
const MAX_CUSTOMERS: usize = 20;

const TEXT: &str = "a text of 1 to 200 characters";
const DATE: &str = "a day from 1970-01-01 to 9999-12-31, written as \"2030-12-27\"";
const CUSTOMERS: &str = "a list of at most 20 texts of 1 to 200 characters";
const TRUTH: &str = "true or false";

const REQUIRED: [&str; 4] = ["mission", "rocket", "launch_date", "target"];

impl NewLaunch {
    /// Reads a JSON document.
    ///
    /// # Errors
    /// Returns which property is missing or wrong, and what it takes.
    pub fn read(document: &[u8]) -> Result<Self, String> {
        let properties: Map<String, Value> =
            serde_json::from_slice(document).map_err(|error| format!("body: not a JSON object: {error}"))?;
        if let Some(missing) = REQUIRED.into_iter().find(|name| !properties.contains_key(*name)) {
            return Err(format!("{missing}: missing; a launch has {}", REQUIRED.join(", ")));
        }
        let mut launch = NewLaunch {
            mission: String::new(),
            rocket: String::new(),
            launch_date: String::new(),
            target: String::new(),
            customers: Vec::new(),
            upcoming: true,
            success: true,
        };
        for (name, value) in properties {
            launch.set(&name, value)?;
        }
        Ok(launch)
    }

    fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        let (is_set, takes) = match name {
            "mission" => (put(&mut self.mission, text(value)), TEXT),
            "rocket" => (put(&mut self.rocket, text(value)), TEXT),
            "target" => (put(&mut self.target, text(value)), TEXT),
            "launch_date" => (put(&mut self.launch_date, text(value).filter(|date| is_date(date))), DATE),
            "customers" => (put(&mut self.customers, customers(value)), CUSTOMERS),
            "upcoming" => (put(&mut self.upcoming, value.as_bool()), TRUTH),
            "success" => (put(&mut self.success, value.as_bool()), TRUTH),
            "flight_number" => return Err("flight_number: the server chooses it".into()),
            other => {
                let name: String = other.chars().take(40).flat_map(char::escape_default).collect();
                return Err(format!("{name}: not a property of a launch"));
            }
        };
        if is_set { Ok(()) } else { Err(format!("{name}: takes {takes}")) }
    }

    /// What it takes in memory, in bytes, with a number.
    pub(super) fn size(&self) -> usize {
        let texts = [&self.mission, &self.rocket, &self.launch_date, &self.target].into_iter().map(String::len);
        let customers = self.customers.iter().map(|name| size_of::<String>() + name.len());
        size_of::<Launch>() + texts.chain(customers).sum::<usize>()
    }

    /// Marks it as aborted.
    pub(super) fn abort(&mut self) {
        self.upcoming = false;
        self.success = false;
    }
}

/// Puts a value in its place; false if there is none.
fn put<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

fn text(value: Value) -> Option<String> {
    match value {
        // PostgreSQL cannot keep the zero character.
        Value::String(text) if !text.is_empty() && text.chars().count() <= MAX_TEXT && !text.contains('\0') => Some(text),
        _ => None,
    }
}

fn customers(value: Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) if items.len() <= MAX_CUSTOMERS => items.into_iter().map(text).collect(),
        _ => None,
    }
}

fn is_date(date: &str) -> bool {
    let start: Result<SystemTime, _> = humantime::parse_rfc3339_weak(&format!("{date} 00:00:00"));
    date.len() == "2030-12-27".len() && start.is_ok()
}
