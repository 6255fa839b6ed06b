//! A `command` or `entrypoint` written as one string, split into words by the shell's quoting rules.
//!
//! There is no shell behind it. docker compose drops everything from the first shell operator on without a word; here
//! an operator outside quotes is refused, and the author is told how to say it.

/// Why a command line was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    /// A quote or a backslash at the end.
    #[error("a quote does not end")]
    Unterminated,
    /// Syntax that only a shell understands.
    #[error(
        "`{0}` is shell syntax and no shell runs here: write [\"sh\", \"-c\", \"…\"], or quote it if it is meant literally"
    )]
    ShellSyntax(&'static str),
}

/// Splits a command line.
pub(super) fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(WordsError::Unterminated)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(WordsError::Unterminated)? {
                        '"' => break,
                        '\\' => word.push(chars.next().ok_or(WordsError::Unterminated)?),
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next().ok_or(WordsError::Unterminated)?),
            '&' if next == Some('&') => return Err(WordsError::ShellSyntax("&&")),
            '|' if next == Some('|') => return Err(WordsError::ShellSyntax("||")),
            '$' if next == Some('(') => return Err(WordsError::ShellSyntax("$(")),
            '&' => return Err(WordsError::ShellSyntax("&")),
            '|' => return Err(WordsError::ShellSyntax("|")),
            ';' => return Err(WordsError::ShellSyntax(";")),
            '(' => return Err(WordsError::ShellSyntax("(")),
            '<' => return Err(WordsError::ShellSyntax("<")),
            '>' => return Err(WordsError::ShellSyntax(">")),
            '`' => return Err(WordsError::ShellSyntax("`")),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_join_and_adjacent_parts_are_one_word() {
        for (text, words) in [
            ("a  b\tc\nd", &["a", "b", "c", "d"][..]),
            (r#"a"b c"'d e'f"#, &["ab cd ef"]),
            ("'' \"\"", &["", ""]),
            (r"a\ b \'c", &["a b", "'c"]),
            (r#""a\"b" 'a\b'"#, &["a\"b", r"a\b"]),
            ("sh -c 'a && b; c > d'", &["sh", "-c", "a && b; c > d"]),
            ("echo a#b # $HOME", &["echo", "a#b", "#", "$HOME"]),
        ] {
            assert_eq!(split(text).expect(text), words, "{text}");
        }
    }

    #[test]
    fn shell_syntax_outside_quotes_is_refused() {
        for (text, syntax) in [
            ("a && b", "&&"),
            ("a&&b", "&&"),
            ("a || b", "||"),
            ("a; b", ";"),
            ("a | b", "|"),
            ("a > f", ">"),
            ("a < f", "<"),
            ("a &", "&"),
            ("`a`", "`"),
            ("a $(b)", "$("),
            ("a (b)", "("),
            ("a(b)", "("),
        ] {
            assert_eq!(split(text), Err(WordsError::ShellSyntax(syntax)), "{text}");
        }
    }

    #[test]
    fn quotes_must_end() {
        for text in ["'a", "\"a", "a\\", "\"a\\"] {
            assert_eq!(split(text), Err(WordsError::Unterminated), "{text}");
        }
    }
}
