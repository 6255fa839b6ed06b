//! Script text to a tree of commands.

use std::iter::Peekable;
use std::str::Chars;

/// Commands in order, each with the condition under which it runs.
pub(super) type List = Vec<(Joint, Command)>;

/// How a command is joined to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joint {
    /// `;`, a line end, `&` or `|`.
    Always,
    /// `&&`.
    And,
    /// `||`.
    Or,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Simple { words: Vec<Word>, redirects: Vec<Redirect> },
    Not(Box<Command>),
    Group(List),
    If { condition: List, then: List, otherwise: List },
    Loop { until: bool, condition: List, body: List },
    For { variable: String, words: Vec<Word>, body: List },
}

/// A word of pieces that are put together when it is used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Word(pub(super) Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Variable(String),
}

impl Word {
    fn push(&mut self, c: char) {
        if let Some(Piece::Text(text)) = self.0.last_mut() {
            text.push(c);
        } else {
            self.0.push(Piece::Text(c.to_string()));
        }
    }

    /// The word, if nothing in it depends on a variable.
    fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// `>&2`, `1>&2`.
    ToStderr,
    /// `2>&1`.
    ErrorsToStdout,
    /// `> path`, `>> path`; of standard error when `errors`.
    ToFile { path: Word, append: bool, errors: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// `quoted`: it cannot be a keyword.
    Word {
        word: Word,
        quoted: bool,
    },
    Operator(&'static str),
    Redirect(Redirect),
}

/// The words as one command, nothing in them special.
pub(super) fn literal(words: &[String]) -> List {
    let words = words.iter().map(|word| Word(vec![Piece::Text(word.clone())])).collect();
    vec![(Joint::Always, Command::Simple { words, redirects: Vec::new() })]
}

/// Reads a script.
pub(super) fn script(text: &str) -> Result<List, String> {
    let tokens = Lexer { rest: text.chars().peekable() }.tokens()?;
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let list = parser.list(&[])?;
    match parser.tokens.get(parser.at) {
        None => Ok(list),
        Some(token) => Err(format!("unexpected {token:?}")),
    }
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Lexer<'_> {
    fn tokens(mut self) -> Result<Vec<Token>, String> {
        let mut tokens = Vec::new();
        while let Some(&c) = self.rest.peek() {
            match c {
                ' ' | '\t' | '\r' => {
                    self.rest.next();
                }
                '#' => while self.rest.next_if(|&c| c != '\n').is_some() {},
                ';' | '\n' => tokens.push(self.operator(";")),
                '(' => tokens.push(self.operator("(")),
                ')' => tokens.push(self.operator(")")),
                '&' => {
                    self.rest.next();
                    let double = self.rest.next_if_eq(&'&').is_some();
                    tokens.push(Token::Operator(if double { "&&" } else { ";" }));
                }
                '|' => {
                    self.rest.next();
                    let double = self.rest.next_if_eq(&'|').is_some();
                    tokens.push(Token::Operator(if double { "||" } else { ";" }));
                }
                '<' => {
                    self.rest.next();
                    self.file_name()?;
                }
                '>' => tokens.push(Token::Redirect(self.redirect(false)?)),
                _ => {
                    let (word, quoted) = self.word()?;
                    match (word.plain(), self.rest.peek()) {
                        (Some(fd @ ("1" | "2")), Some('>')) if !quoted => {
                            let errors = fd == "2";
                            tokens.push(Token::Redirect(self.redirect(errors)?));
                        }
                        _ => tokens.push(Token::Word { word, quoted }),
                    }
                }
            }
        }
        Ok(tokens)
    }

    fn operator(&mut self, text: &'static str) -> Token {
        self.rest.next();
        Token::Operator(text)
    }

    fn file_name(&mut self) -> Result<Word, String> {
        while self.rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        let (word, quoted) = self.word()?;
        if word.0.is_empty() && !quoted { Err(String::from("a redirection without a file")) } else { Ok(word) }
    }

    fn redirect(&mut self, errors: bool) -> Result<Redirect, String> {
        self.rest.next();
        let append = self.rest.next_if_eq(&'>').is_some();
        if self.rest.next_if_eq(&'&').is_some() {
            return Ok(if self.rest.next() == Some('2') { Redirect::ToStderr } else { Redirect::ErrorsToStdout });
        }
        let path = self.file_name()?;
        Ok(match path.plain() {
            Some("/dev/stderr" | "/proc/1/fd/2") => Redirect::ToStderr,
            Some("/dev/stdout" | "/proc/1/fd/1") => Redirect::ErrorsToStdout,
            _ => Redirect::ToFile { path, append, errors },
        })
    }

    fn word(&mut self) -> Result<(Word, bool), String> {
        let mut word = Word::default();
        let mut quoted = false;
        while let Some(&c) = self.rest.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '\'' => {
                    quoted = true;
                    self.rest.next();
                    self.until('\'', Word::push, &mut word)?;
                }
                '"' => {
                    quoted = true;
                    self.rest.next();
                    self.double_quoted(&mut word)?;
                }
                '\\' => {
                    quoted = true;
                    self.rest.next();
                    if let Some(c) = self.rest.next().filter(|&c| c != '\n') {
                        word.push(c);
                    }
                }
                '$' | '`' => self.expansion(&mut word)?,
                _ => {
                    self.rest.next();
                    word.push(c);
                }
            }
        }
        Ok((word, quoted))
    }

    fn until(&mut self, end: char, keep: fn(&mut Word, char), word: &mut Word) -> Result<(), String> {
        for c in self.rest.by_ref() {
            if c == end {
                return Ok(());
            }
            keep(word, c);
        }
        Err(format!("unterminated {end}"))
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), String> {
        while let Some(&c) = self.rest.peek() {
            match c {
                '"' => {
                    self.rest.next();
                    return Ok(());
                }
                '$' | '`' => self.expansion(word)?,
                '\\' => {
                    self.rest.next();
                    match self.rest.next() {
                        Some(c @ ('"' | '$' | '\\' | '`')) => word.push(c),
                        Some('\n') | None => {}
                        Some(c) => {
                            word.push('\\');
                            word.push(c);
                        }
                    }
                }
                _ => {
                    self.rest.next();
                    word.push(c);
                }
            }
        }
        Err(String::from("unterminated \""))
    }

    /// `$name`, `${name…}`; the output of commands and the value of sums are empty here.
    fn expansion(&mut self, word: &mut Word) -> Result<(), String> {
        if self.rest.next() == Some('`') {
            return self.until('`', |_, _| {}, word);
        }
        match self.rest.peek() {
            Some('(') => {
                let mut depth = 0;
                for c in self.rest.by_ref() {
                    match c {
                        '(' => depth += 1,
                        ')' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        return Ok(());
                    }
                }
                return Err(String::from("unterminated $("));
            }
            Some('{') => {
                self.rest.next();
                let mut inner = Word::default();
                self.until('}', Word::push, &mut inner)?;
                let name = inner.plain().unwrap_or_default();
                let name: String = name.chars().take_while(|&c| is_name(c)).collect();
                word.0.push(Piece::Variable(name));
            }
            Some(&c) if is_name(c) => {
                let mut name = String::new();
                while let Some(c) = self.rest.next_if(|&c| is_name(c)) {
                    name.push(c);
                }
                word.0.push(Piece::Variable(name));
            }
            Some('?' | '$' | '!' | '@' | '*' | '#') => {
                let name = self.rest.next().map(String::from).unwrap_or_default();
                word.0.push(Piece::Variable(name));
            }
            _ => word.push('$'),
        }
        Ok(())
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Scripts are tenants' text: they may not nest without end.
const MAX_DEPTH: usize = 50;

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    /// The keyword at this place.
    fn keyword(&self) -> Option<&str> {
        match self.tokens.get(self.at) {
            Some(Token::Word { word, quoted: false }) => word.plain(),
            Some(Token::Operator(")")) => Some(")"),
            _ => None,
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.keyword() == Some(word) {
            self.at += 1;
            Ok(())
        } else {
            Err(format!("{word:?} is missing"))
        }
    }

    fn separators(&mut self) {
        while self.tokens.get(self.at) == Some(&Token::Operator(";")) {
            self.at += 1;
        }
    }

    /// Commands up to one of these words, which is left in place.
    fn list(&mut self, ends: &[&str]) -> Result<List, String> {
        let mut list = List::new();
        let mut joint = Joint::Always;
        loop {
            self.separators();
            if self.at == self.tokens.len() || self.keyword().is_some_and(|word| ends.contains(&word)) {
                break;
            }
            list.push((joint, self.command()?));
            joint = match self.tokens.get(self.at) {
                Some(Token::Operator("&&")) => Joint::And,
                Some(Token::Operator("||")) => Joint::Or,
                Some(Token::Operator(";")) => Joint::Always,
                _ => {
                    joint = Joint::Always;
                    break;
                }
            };
            self.at += 1;
        }
        if joint == Joint::Always { Ok(list) } else { Err(String::from("a command is missing at the end")) }
    }

    fn command(&mut self) -> Result<Command, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(String::from("nested too deeply"));
        }
        let command = self.command_here()?;
        self.depth -= 1;
        Ok(command)
    }

    fn command_here(&mut self) -> Result<Command, String> {
        match self.keyword() {
            Some("!") => {
                self.at += 1;
                Ok(Command::Not(Box::new(self.command()?)))
            }
            Some("{") => {
                self.at += 1;
                let list = self.list(&["}"])?;
                self.expect("}")?;
                Ok(Command::Group(list))
            }
            Some("if") => self.conditional(),
            Some(word @ ("while" | "until")) => {
                let until = word == "until";
                self.at += 1;
                let condition = self.list(&["do"])?;
                Ok(Command::Loop { until, condition, body: self.body()? })
            }
            Some("for") => {
                self.at += 1;
                let variable = self.keyword().unwrap_or_default().to_owned();
                self.at += 1;
                self.expect("in")?;
                let mut words = Vec::new();
                while let Some(Token::Word { word, .. }) = self.tokens.get(self.at) {
                    words.push(word.clone());
                    self.at += 1;
                }
                self.separators();
                Ok(Command::For { variable, words, body: self.body()? })
            }
            _ if self.tokens.get(self.at) == Some(&Token::Operator("(")) => {
                self.at += 1;
                let list = self.list(&[")"])?;
                self.expect(")")?;
                Ok(Command::Group(list))
            }
            _ => self.simple(),
        }
    }

    fn body(&mut self) -> Result<List, String> {
        self.expect("do")?;
        let body = self.list(&["done"])?;
        self.expect("done")?;
        Ok(body)
    }

    /// From `if` or `elif` to `fi`.
    fn conditional(&mut self) -> Result<Command, String> {
        self.at += 1;
        let condition = self.list(&["then"])?;
        self.expect("then")?;
        let then = self.list(&["elif", "else", "fi"])?;
        let otherwise = match self.keyword() {
            Some("elif") => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(String::from("nested too deeply"));
                }
                let otherwise = vec![(Joint::Always, self.conditional()?)];
                self.depth -= 1;
                return Ok(Command::If { condition, then, otherwise });
            }
            Some("else") => {
                self.at += 1;
                self.list(&["fi"])?
            }
            _ => List::new(),
        };
        self.expect("fi")?;
        Ok(Command::If { condition, then, otherwise })
    }

    fn simple(&mut self) -> Result<Command, String> {
        let (mut words, mut redirects) = (Vec::new(), Vec::new());
        loop {
            match self.tokens.get(self.at) {
                Some(Token::Word { word, .. }) => words.push(word.clone()),
                Some(Token::Redirect(redirect)) => redirects.push(redirect.clone()),
                _ => break,
            }
            self.at += 1;
        }
        if words.is_empty() && redirects.is_empty() {
            return Err(String::from("a command is missing"));
        }
        Ok(Command::Simple { words, redirects })
    }
}
