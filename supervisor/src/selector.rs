//! What a user means by the target of a command: a name, a pattern such as `api-*`, a namespace, an id or `all`.

use regex_lite::Regex;

/// A target.
#[derive(Debug, Clone)]
pub struct Selector {
    text: String,
    pattern: Option<Regex>,
}

impl Selector {
    /// Reads a target.
    pub fn new(text: &str) -> Self {
        let pattern = text.contains('*').then(|| regex_lite::escape(text).replace("\\*", ".*"));
        let pattern = pattern.and_then(|pattern| Regex::new(&format!("^{pattern}$")).ok());
        Selector { text: text.to_owned(), pattern }
    }

    /// Returns whether an instance is meant.
    pub fn means(&self, name: &str, namespace: Option<&str>, id: Option<u32>) -> bool {
        let Selector { text, pattern } = self;
        let is_named = pattern.as_ref().map_or(name == text, |pattern| pattern.is_match(name));
        is_named || text == "all" || namespace == Some(text) || id.is_some_and(|id| id.to_string() == *text)
    }

    /// Returns the error for a target that nothing matches: it suggests a similar name, or lists all.
    pub fn nothing<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> String {
        let (text, names): (_, Vec<&str>) = (&self.text, names.into_iter().collect());
        let near = names.iter().map(|name| (strsim::jaro_winkler(text, name), *name)).max_by(|one, two| one.0.total_cmp(&two.0));
        match near {
            _ if text == "all" => "no apps yet: run `supervisor start`".into(),
            Some((likeness, name)) if likeness > 0.7 => format!("there is no app or id '{text}'; did you mean {name}?"),
            Some(_) => format!("there is no app or id '{text}'; the apps are: {}", names.join(", ")),
            None => format!("there is no app or id '{text}'; no apps yet: run `supervisor start`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_patterns_namespaces_and_ids_are_meant() {
        let means = |text: &str| Selector::new(text).means("api-1", Some("web"), Some(7));
        assert!(["api-1", "api-*", "*", "a*1", "web", "7", "all"].into_iter().all(means));
        assert!(!["api", "api-", "*-2", "we*", "70", "", "ALL", "api.1"].into_iter().any(means));
        assert!(!Selector::new("7").means("api", None, None));
    }

    #[test]
    fn a_similar_name_is_suggested() {
        let says = |text: &str, names: &[&str]| Selector::new(text).nothing(names.iter().copied());
        assert!(says("apo", &["web", "api"]).ends_with("did you mean api?"));
        assert!(says("x", &["web", "api"]).ends_with("the apps are: web, api"));
        assert_eq!(says("all", &[]), "no apps yet: run `supervisor start`");
    }
}
