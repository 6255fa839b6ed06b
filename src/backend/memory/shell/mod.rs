//! The pretend shell that containers of the in-memory backend run: enough of `sh` that one Compose file behaves here as
//! it does on a small real image.
//!
//! It knows `echo printf sleep exit true false : touch test [ cat rm trap exec`, variables, redirections, `; && || !`,
//! `if`, `for`, `while` and `until`. Any other word is a command that succeeds at once and says nothing. A container
//! whose own program is none of these (`nginx -g 'daemon off;'`) runs until it is stopped, as servers do; so does one
//! without a command.

mod parse;
mod run;

pub(super) use run::{Flow, Shell, World};

use parse::List;

/// What a container or a healthcheck runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// Something that runs until it is stopped.
    Forever,
    /// A script.
    Script(Script),
    /// A script that no shell would take, and what is wrong with it.
    Invalid(String),
}

/// A script that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script(List);

/// What a program that the pretend shell does not know stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A server: it runs until it is stopped.
    Serves,
    /// A tool: it succeeds at once.
    Succeeds,
}

impl Program {
    /// The program behind the words of an entrypoint and a command.
    pub(super) fn of_words(words: &[String], unknown: Unknown) -> Self {
        let Some(first) = words.first() else { return Self::Forever };
        let name = first.rsplit('/').next().unwrap_or(first);
        if matches!(name, "sh" | "ash" | "bash" | "dash") {
            let script = words.iter().skip(1).position(|word| word.starts_with('-') && word.ends_with('c'));
            return match script.and_then(|at| words.get(at + 2)) {
                Some(text) => Self::of_script(text),
                None => Self::Forever,
            };
        }
        if run::is_known(name) || unknown == Unknown::Succeeds {
            return Self::Script(Script(parse::literal(words)));
        }
        Self::Forever
    }

    /// The program behind a script's text.
    pub(super) fn of_script(text: &str) -> Self {
        match parse::script(text) {
            Ok(list) => Self::Script(Script(list)),
            Err(reason) => Self::Invalid(reason),
        }
    }
}
