//! `.env` files, read as Node's `--env-file` reads them, but that a line which is no variable is an error.

use regex_lite::Regex;
use std::collections::BTreeMap;

/// `NAME=value`, with `export` before it or a comment behind it. A value in quotes may take several lines, and what stands behind it does not count; quotes
/// that do not end are part of the value.
const PAIR: &str =
    r#"(?m)^[^\S\n]*(?:export[^\S\n]+)?([^\s=#][^=\n]*?)[^\S\n]*=[^\S\n]*(?:'([^']*)'|"([^"]*)"|`([^`]*)`|([^#\n]*))[^\n]*$"#;
/// The groups of a value in single quotes, in double ones, in backquotes, and in none.
const VALUES: [usize; 4] = [2, 3, 4, 5];
const DOUBLE: usize = 3;

/// Reads the variables of a file.
///
/// # Errors
/// Fails with the number of the first line that is none, and the reason. Node passes over it.
pub fn read(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let pair = Regex::new(PAIR).map_err(|error| (1, error.to_string()))?;
    let (mut variables, mut end) = (BTreeMap::new(), 0);
    for found in pair.captures_iter(&text) {
        let value = VALUES.into_iter().find_map(|group| Some((group, found.get(group)?.as_str())));
        let (Some(whole), Some(name), Some((group, value))) = (found.get(0), found.get(1), value) else { continue };
        expect_nothing(&text, end, whole.start())?;
        end = whole.end();
        let value = if group == DOUBLE { value.replace("\\n", "\n") } else { value.to_owned() };
        let value = if VALUES.ends_with(&[group]) { value.trim().to_owned() } else { value };
        variables.insert(name.as_str().to_owned(), value);
    }
    expect_nothing(&text, end, text.len())?;
    Ok(variables)
}

/// Checks that there are only comments and empty lines in a part of a file, or variables that are exported as they are.
fn expect_nothing(text: &str, from: usize, to: usize) -> Result<(), (usize, String)> {
    let before = text[..from].matches('\n').count();
    for (number, line) in text[from..to].lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') && !line.starts_with("export ") {
            return Err((before + number + 1, "expected NAME=value".into()));
        }
    }
    Ok(())
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
    fn quotes_that_are_odd_are_read_as_node_reads_them() {
        // What `node --env-file` prints of these lines.
        for (line, value) in [
            ("A=\"x\" y", "x"),
            ("A='tis", "'tis"),
            ("A=\"a\\\"b\"", "a\\"),
            ("A='it''s'", "it"),
            ("\u{feff}A=1", "1"),
            ("A=`b`", "b"),
        ] {
            assert_eq!(read(line).unwrap()["A"], value, "{line}");
        }
        assert_eq!(
            read("MY VAR=2\nÄ=3\nexport FOO\n").unwrap().into_iter().collect::<Vec<_>>(),
            [("MY VAR".into(), "2".into()), ("Ä".into(), "3".into())]
        );
    }

    #[test]
    fn a_line_that_is_no_variable_is_named() {
        assert_eq!(read("A=1\n\nD\nB=2\n").unwrap_err().0, 3);
    }
}
