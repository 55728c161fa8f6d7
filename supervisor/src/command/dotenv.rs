//! `.env` files, read as Node's `--env-file` and dotenv read them.

use regex_lite::Regex;
use std::collections::BTreeMap;

/// `NAME=value`, with `export` before it or a comment behind it. A value in quotes may take several lines. It is the expression of dotenv.
const PAIR: &str = r#"(?m)^[^\S\n]*(?:export[^\S\n]+)?([\w.-]+)[^\S\n]*=[^\S\n]*('[^']*'|"(?:\\.|[^"\\])*"|`[^`]*`|[^#\n]*)[^\S\n]*(?:#[^\n]*)?$"#;

/// Reads the variables of a file.
///
/// # Errors
/// Fails with the number of the first line that is none, and the reason.
pub fn read(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let text = text.replace("\r\n", "\n");
    let pair = Regex::new(PAIR).map_err(|error| (1, error.to_string()))?;
    let (mut variables, mut end) = (BTreeMap::new(), 0);
    for found in pair.captures_iter(&text) {
        let (Some(whole), Some(name), Some(value)) = (found.get(0), found.get(1), found.get(2)) else { continue };
        expect_nothing(&text, end, whole.start())?;
        end = whole.end();
        let (value, value_start) = (value.as_str().trim(), value.start());
        let is_open = value.starts_with(['"', '\'', '`']) && (value.len() < 2 || value.chars().next() != value.chars().last());
        if is_open {
            return Err((text[..value_start].matches('\n').count() + 1, format!("the quotes of {} do not end", name.as_str())));
        }
        variables.insert(name.as_str().to_owned(), plain(value));
    }
    expect_nothing(&text, end, text.len())?;
    Ok(variables)
}

/// Checks that there are only comments and empty lines in a part of a file.
fn expect_nothing(text: &str, from: usize, to: usize) -> Result<(), (usize, String)> {
    let before = text[..from].matches('\n').count();
    for (number, line) in text[from..to].lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            return Err((before + number + 1, "expected NAME=value".into()));
        }
    }
    Ok(())
}

/// A value without its quotes. In double quotes, `\n` is the end of a line.
fn plain(value: &str) -> String {
    let inner = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    match inner('"') {
        Some(text) => text.replace("\\n", "\n"),
        None => inner('\'').or_else(|| inner('`')).unwrap_or(value).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_node_reads_it() {
        // What `node --env-file` prints of this file.
        let text = "# first\nA=\"x y\" # c\n B = plain # comment\nexport C='it # is'\nKEY=\"-----BEGIN\nmiddle\n-----END\"\nN=\"a\\nb\"\nE=\n\nURL=http://a/b?c=d&e\nP=pa$$wd\nQ=it's\r\n";
        let found = read(text).unwrap();
        let wanted = [
            ("A", "x y"),
            ("B", "plain"),
            ("C", "it # is"),
            ("E", ""),
            ("KEY", "-----BEGIN\nmiddle\n-----END"),
            ("N", "a\nb"),
            ("P", "pa$$wd"),
            ("Q", "it's"),
            ("URL", "http://a/b?c=d&e"),
        ];
        assert_eq!(found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_line_that_is_no_variable_is_named() {
        assert_eq!(read("A=1\n\nD\nB=2\n").unwrap_err().0, 3);
        assert_eq!(read("A=1\nB=\"never ends\nC=3\n").unwrap_err().0, 2);
    }
}
