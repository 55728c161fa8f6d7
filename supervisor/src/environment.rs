//! Environment variables, and their form in files and requests.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Environment variables, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment(pub Vec<(OsString, OsString)>);

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        Environment(variables.into_iter().collect())
    }
}

/// A name or a value: text, or its bytes if it is not valid UTF-8.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Bytes(Vec<u8>),
    /// The form in which the first version wrote all of them.
    First {
        #[serde(rename = "Unix")]
        unix: Vec<u8>,
    },
}

impl From<&OsStr> for Word {
    fn from(text: &OsStr) -> Self {
        text.to_str().map_or_else(|| Word::Bytes(text.as_bytes().to_vec()), |text| Word::Text(text.to_owned()))
    }
}

impl From<Word> for OsString {
    fn from(word: Word) -> Self {
        match word {
            Word::Text(text) => text.into(),
            Word::Bytes(bytes) | Word::First { unix: bytes } => OsString::from_vec(bytes),
        }
    }
}

impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(name, value)| (Word::from(name.as_os_str()), Word::from(value.as_os_str()))))
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<(Word, Word)>::deserialize(deserializer)?;
        Ok(words.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_survive_their_text() {
        let environment: Environment =
            [("A".into(), "b \u{e9}".into()), ("B".into(), OsString::from_vec(vec![0xff, 0x20]))].into_iter().collect();
        let text = serde_json::to_string(&environment).unwrap();
        assert_eq!(text, r#"[["A","b é"],["B",[255,32]]]"#);
        assert_eq!(serde_json::from_str::<Environment>(&text).unwrap(), environment);
    }

    #[test]
    fn the_form_of_the_first_version_can_be_read() {
        let read: Environment = serde_json::from_str(r#"[[{"Unix":[65]},{"Unix":[98]}]]"#).unwrap();
        assert_eq!(read.0, [("A".into(), "b".into())]);
    }
}
