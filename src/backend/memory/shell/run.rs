//! Runs the commands of a script in pretended time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;

use super::Program;
use super::parse::{Command, Joint, List, Piece, Redirect, Word, script};
use crate::backend::LogStreamKind;

/// What a script can do to the container it runs in.
pub(in crate::backend::memory) trait World: Send + Sync {
    /// Writes one line.
    fn print(&self, stream: LogStreamKind, line: &str);
    /// A file's content; none when there is no such file.
    fn read(&self, path: &str) -> Option<Vec<u8>>;
    /// Whether files are kept below this path.
    fn is_directory(&self, path: &str) -> bool;
    /// Makes or changes a file.
    fn write(&self, path: &str, bytes: &[u8], append: bool);
    /// Deletes a file, if it is there.
    fn delete(&self, path: &str);
}

/// What a command ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::memory) enum Flow {
    /// Its exit status; the script goes on.
    Status(i64),
    /// `exit`: the script ends with this status.
    Exit(i64),
}

/// One running program. Shared by the program itself and whoever sends it a signal.
pub(in crate::backend::memory) struct Shell<'a, W: World> {
    world: &'a W,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    variables: BTreeMap<String, String>,
    /// Signal name without `SIG` -> what `trap` gave for it.
    traps: BTreeMap<String, String>,
}

/// How often a loop that never sleeps comes round, so that a tenant's loop cannot take a whole CPU.
const LOOP_PAUSE: Duration = Duration::from_millis(1);

const KNOWN: &[&str] =
    &[":", "[", "cat", "echo", "exec", "exit", "false", "printf", "rm", "sleep", "test", "touch", "trap", "true"];

/// Whether the pretend shell knows this command.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

impl<'a, W: World> Shell<'a, W> {
    pub(in crate::backend::memory) fn new(world: &'a W, variables: BTreeMap<String, String>) -> Self {
        Self { world, state: Mutex::new(State { variables, traps: BTreeMap::new() }) }
    }

    /// Runs the program to its end and gives its exit code.
    pub(in crate::backend::memory) async fn run(&self, program: &Program) -> i64 {
        match program {
            Program::Forever => std::future::pending().await,
            Program::Invalid(reason) => {
                self.world.print(LogStreamKind::Stderr, &format!("sh: syntax error: {reason}"));
                2
            }
            Program::Script(script) => match self.list(&script.0).await {
                Flow::Status(code) | Flow::Exit(code) => code,
            },
        }
    }

    /// Does what the script asked for with `trap`. None: it asked for nothing.
    pub(in crate::backend::memory) async fn signal(&self, name: &str) -> Option<Flow> {
        let handler = self.lock().traps.get(name).cloned()?;
        match script(&handler) {
            Ok(list) => Some(self.list(&list).await),
            Err(_) => Some(Flow::Status(2)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list<'b>(&'b self, list: &'b List) -> BoxFuture<'b, Flow> {
        Box::pin(async move {
            let mut status = 0;
            for (joint, command) in list {
                let skip = match joint {
                    Joint::Always => false,
                    Joint::And => status != 0,
                    Joint::Or => status == 0,
                };
                if skip {
                    continue;
                }
                match self.command(command).await {
                    Flow::Status(code) => status = code,
                    exit @ Flow::Exit(_) => return exit,
                }
                self.lock().variables.insert(String::from("?"), status.to_string());
            }
            Flow::Status(status)
        })
    }

    async fn command(&self, command: &Command) -> Flow {
        match command {
            Command::Simple { words, redirects } => self.simple(words, redirects).await,
            Command::Not(inner) => match Box::pin(self.command(inner)).await {
                Flow::Status(code) => Flow::Status(i64::from(code == 0)),
                exit @ Flow::Exit(_) => exit,
            },
            Command::Group(list) => self.list(list).await,
            Command::If { condition, then, otherwise } => match self.list(condition).await {
                Flow::Status(0) => self.list(then).await,
                Flow::Status(_) => self.list(otherwise).await,
                exit @ Flow::Exit(_) => exit,
            },
            Command::Loop { until, condition, body } => loop {
                match self.list(condition).await {
                    Flow::Status(code) if (code == 0) == *until => return Flow::Status(0),
                    Flow::Status(_) => {}
                    exit @ Flow::Exit(_) => return exit,
                }
                if let exit @ Flow::Exit(_) = self.list(body).await {
                    return exit;
                }
                tokio::time::sleep(LOOP_PAUSE).await;
            },
            Command::For { variable, words, body } => {
                let mut last = Flow::Status(0);
                for word in words {
                    let value = self.expand(word);
                    self.lock().variables.insert(variable.clone(), value);
                    last = self.list(body).await;
                    if let Flow::Exit(_) = last {
                        break;
                    }
                }
                last
            }
        }
    }

    fn expand(&self, word: &Word) -> String {
        let state = self.lock();
        let mut text = String::new();
        for piece in &word.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable(name) => text.push_str(state.variables.get(name).map_or("", String::as_str)),
            }
        }
        text
    }

    async fn simple(&self, words: &[Word], redirects: &[Redirect]) -> Flow {
        let mut words: Vec<String> = words.iter().map(|word| self.expand(word)).collect();
        while let Some((name, value)) = words.first().and_then(|word| assignment(word)) {
            self.lock().variables.insert(name, value);
            words.remove(0);
        }
        let output = Output::of(redirects, self);
        let Some((command, arguments)) = words.split_first() else {
            output.write(self.world, "");
            return Flow::Status(0);
        };
        let name = command.rsplit('/').next().unwrap_or(command);
        let status = match name {
            "echo" => {
                let arguments = arguments.strip_prefix(&[String::from("-n")]).unwrap_or(arguments);
                output.write(self.world, &format!("{}\n", arguments.join(" ")));
                0
            }
            "printf" => {
                output.write(self.world, &unescape(arguments.first().map_or("", String::as_str)));
                0
            }
            "sleep" => match arguments.iter().map(|text| seconds(text)).collect::<Option<Vec<_>>>() {
                Some(parts) if !parts.is_empty() => {
                    pause(parts).await;
                    0
                }
                _ => 1,
            },
            "exit" => return Flow::Exit(arguments.first().and_then(|code| code.parse().ok()).unwrap_or(0)),
            "false" => 1,
            "test" => i64::from(!self.test(arguments)),
            "[" => i64::from(!self.test(arguments.strip_suffix(&[String::from("]")]).unwrap_or(arguments))),
            "touch" => {
                for path in arguments {
                    self.world.write(path, b"", true);
                }
                0
            }
            "rm" => {
                arguments.iter().filter(|word| !word.starts_with('-')).for_each(|path| self.world.delete(path));
                0
            }
            "cat" => self.cat(arguments, &output),
            "trap" => {
                if let Some((handler, signals)) = arguments.split_first() {
                    let mut state = self.lock();
                    for signal in signals {
                        state.traps.insert(signal.trim_start_matches("SIG").to_owned(), handler.clone());
                    }
                }
                0
            }
            "exec" if arguments.iter().any(|word| word != "exec") => {
                let repeated = arguments.iter().take_while(|word| *word == "exec").count();
                let arguments = &arguments[repeated..];
                let program = Program::of_words(arguments, super::Unknown::Serves);
                return Flow::Exit(Box::pin(self.run(&program)).await);
            }
            _ => {
                output.write(self.world, "");
                0
            }
        };
        Flow::Status(status)
    }

    fn cat(&self, paths: &[String], output: &Output) -> i64 {
        let mut status = 0;
        for path in paths {
            if let Some(bytes) = self.world.read(path) {
                output.write(self.world, &String::from_utf8_lossy(&bytes));
            } else {
                self.world
                    .print(LogStreamKind::Stderr, &format!("cat: can't open '{path}': No such file or directory"));
                status = 1;
            }
        }
        status
    }

    fn test(&self, arguments: &[String]) -> bool {
        let negations = arguments.iter().take_while(|word| *word == "!").count();
        let words: Vec<&str> = arguments.iter().skip(negations).map(String::as_str).collect();
        let holds = match words.as_slice() {
            ["-d", path] => self.world.is_directory(path),
            ["-s", path] => self.world.read(path).is_some_and(|bytes| !bytes.is_empty()),
            ["-e", path] => self.world.read(path).is_some() || self.world.is_directory(path),
            ["-f" | "-r" | "-w", path] => self.world.read(path).is_some(),
            ["-n", text] | [text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            [left, "=" | "==" | "-eq", right] => left == right,
            [left, "!=" | "-ne", right] => left != right,
            _ => false,
        };
        holds == (negations % 2 == 0)
    }
}

/// Where a command's standard output goes.
enum Output {
    Stream(LogStreamKind),
    File { path: String, append: bool },
}

impl Output {
    fn of<W: World>(redirects: &[Redirect], shell: &Shell<'_, W>) -> Self {
        let mut output = Self::Stream(LogStreamKind::Stdout);
        for redirect in redirects {
            match redirect {
                Redirect::ToStderr => output = Self::Stream(LogStreamKind::Stderr),
                Redirect::ToFile { path, append, errors: false } => {
                    output = Self::File { path: shell.expand(path), append: *append };
                }
                Redirect::ErrorsToStdout | Redirect::ToFile { errors: true, .. } => {}
            }
        }
        output
    }

    fn write<W: World>(&self, world: &W, text: &str) {
        match self {
            Self::Stream(stream) => text.lines().for_each(|line| world.print(*stream, line)),
            Self::File { path, .. } if path == "/dev/null" => {}
            Self::File { path, append } => world.write(path, text.as_bytes(), *append),
        }
    }
}

/// `NAME=value`.
fn assignment(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    good.then(|| (name.to_owned(), value.to_owned()))
}

/// `infinity`, as `sleep` takes it.
const ENDLESS: Duration = Duration::MAX;

/// Sleeps for the sum of the times, or without end.
async fn pause(times: Vec<Duration>) {
    match times.into_iter().fold(Duration::ZERO, Duration::saturating_add) {
        ENDLESS => std::future::pending().await,
        sum => tokio::time::sleep(sum).await,
    }
}

/// `1`, `0.5`, `2m`, `infinity`; none for anything else.
fn seconds(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(ENDLESS);
    }
    let number = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let factor = match &text[number.len()..] {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("%%", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Paper {
        lines: Mutex<Vec<String>>,
        files: Mutex<BTreeMap<String, Vec<u8>>>,
    }

    impl World for Paper {
        fn print(&self, stream: LogStreamKind, line: &str) {
            let mark = if stream == LogStreamKind::Stderr { "!" } else { "" };
            self.lines.lock().unwrap().push(format!("{mark}{line}"));
        }
        fn read(&self, path: &str) -> Option<Vec<u8>> {
            self.files.lock().unwrap().get(path).cloned()
        }
        fn is_directory(&self, path: &str) -> bool {
            path == "/data"
        }
        fn write(&self, path: &str, bytes: &[u8], append: bool) {
            let mut files = self.files.lock().unwrap();
            let file = files.entry(path.to_owned()).or_default();
            if !append {
                file.clear();
            }
            file.extend_from_slice(bytes);
        }
        fn delete(&self, path: &str) {
            self.files.lock().unwrap().remove(path);
        }
    }

    async fn run(words: &[&str]) -> (i64, String) {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let paper = Paper::default();
        let variables = BTreeMap::from([(String::from("NAME"), String::from("acme"))]);
        let program = Program::of_words(&words, super::super::Unknown::Serves);
        let code = Shell::new(&paper, variables).run(&program).await;
        let lines = paper.lines.lock().unwrap().join("|");
        (code, lines)
    }

    #[tokio::test]
    async fn scripts() {
        for (script, code, lines) in [
            ("true", 0, ""),
            ("false", 1, ""),
            ("exit 3", 3, ""),
            ("exit 3; echo no", 3, ""),
            ("echo one; echo two >&2\necho 'three  3' # no", 0, "one|!two|three  3"),
            ("false && echo no || echo yes", 0, "yes"),
            ("true && echo yes || echo no", 0, "yes"),
            ("! false && echo yes", 0, "yes"),
            ("echo \"hello $NAME ${NAME}!\" '$NAME'", 0, "hello acme acme! $NAME"),
            ("X=1; echo x$X; echo $?", 0, "x1|0"),
            ("touch /a && test -f /a && echo there; [ -f /b ] || exit 4", 4, "there"),
            ("echo content > /a; echo more >> /a; cat /a", 0, "content|more"),
            ("cat /none", 1, "!cat: can't open '/none': No such file or directory"),
            ("if [ -d /data ]; then echo d; else echo n; fi", 0, "d"),
            ("if false; then echo a; elif true; then echo b; else echo c; fi", 0, "b"),
            ("for x in 1 2 3; do echo l$x; done", 0, "l1|l2|l3"),
            ("until test -f /a; do echo again; touch /a; done; echo done", 0, "again|done"),
            ("curl -sf http://localhost | grep ok && echo fine", 0, "fine"),
            ("sleep 0.001 && sleep 1x", 1, ""),
            ("echo $(date) x; echo `date`y", 0, " x|y"),
            ("{ echo a; (echo b); }", 0, "a|b"),
            ("exec echo gone; echo no", 0, "gone"),
            ("echo 'open", 2, "!sh: syntax error: unterminated '"),
            ("while true; do echo x", 2, "!sh: syntax error: \"done\" is missing"),
        ] {
            assert_eq!(run(&["sh", "-c", script]).await, (code, lines.to_owned()), "{script}");
        }
        assert_eq!(run(&["echo", "a;", "$NAME"]).await, (0, String::from("a; $NAME")));
        assert_eq!(run(&["/bin/false"]).await, (1, String::new()));
    }

    #[tokio::test]
    async fn servers_run_until_they_are_stopped() {
        for words in
            [&[][..], &["nginx", "-g", "daemon off;"], &["sleep", "infinity"], &["sh", "-c", "exec nginx"], &["sh"]]
        {
            let ended = tokio::time::timeout(Duration::from_millis(20), run(words)).await;
            assert!(ended.is_err(), "{words:?}");
        }
    }

    #[tokio::test]
    async fn traps_answer_signals() {
        for (script, answer) in [
            ("true", None),
            ("trap '' TERM", Some(Flow::Status(0))),
            ("trap 'echo bye; exit 7' TERM INT", Some(Flow::Exit(7))),
        ] {
            let paper = Paper::default();
            let shell = Shell::new(&paper, BTreeMap::new());
            shell.run(&Program::of_script(script)).await;
            assert_eq!(shell.signal("TERM").await, answer, "{script}");
        }
    }
}
