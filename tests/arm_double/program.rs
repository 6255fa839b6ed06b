//! What a container does once it has started: by the name of its image, or by what its command says.
//!
//! Images whose last word is `crash` end with 1, `oneshot` with 0, `sick` fail their probes, `slow` take ten times as long to
//! pull, `chatty` write a line at once; all others run until they are stopped. Of commands `echo`, `sleep`, `exit`, `true`
//! and `false` are understood, also in a row after `sh -c`; what else is in there takes no time.

use serde_json::Value;

use super::clock::Millis;
use super::world::Delays;

/// One run of a program: lines by the time since its start, and when and how it ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Program {
    lines: Vec<(Millis, String)>,
    end: Option<(Millis, i64)>,
}

/// The last word of an image's name, without tag and digest.
pub(super) fn kind_of(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

impl Program {
    pub(super) fn of(container: &Value, delays: &Delays) -> Self {
        let properties = &container["properties"];
        let kind = kind_of(properties["image"].as_str().unwrap_or_default());
        let mut program = match kind {
            "crash" => Self { lines: vec![(0, "it crashes".to_owned())], end: Some((delays.run, 1)) },
            "oneshot" => Self { lines: vec![(0, "it is done".to_owned())], end: Some((delays.run, 0)) },
            "chatty" => Self { lines: vec![(0, "it is up".to_owned())], end: None },
            _ => Self::of_command(&words(&properties["command"])),
        };
        if fails(&properties["livenessProbe"], kind) && program.end.is_none_or(|(at, _)| at > delays.sick) {
            program.end = Some((delays.sick, 137));
        }
        program
    }

    fn of_command(command: &[String]) -> Self {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => Self::default(),
            [shell, flag, script, ..] if shell.ends_with("sh") && *flag == "-c" => Self::of_script(script),
            all => Self::of_script(&all.join(" ")),
        }
    }

    fn of_script(script: &str) -> Self {
        let mut program = Self::default();
        let mut now = 0;
        let mut code = 0;
        for line in script.split([';', '\n']) {
            let line = line.trim();
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word.rsplit('/').next().unwrap_or_default() {
                "echo" => {
                    let text = rest.trim_end_matches(">&2").trim().trim_matches(['"', '\'']);
                    program.lines.push((now, text.to_owned()));
                    code = 0;
                }
                "sleep" => {
                    let Ok(time) = rest.trim().parse::<f64>() else { return program };
                    now += millis_of(time);
                    code = 0;
                }
                "exit" => {
                    program.end = Some((now, rest.trim().parse().unwrap_or(code)));
                    return program;
                }
                "true" => code = 0,
                "false" => code = 1,
                // A program that this does not know is one that runs on.
                _ => return program,
            }
        }
        program.end = Some((now, code));
        program
    }

    fn ends(&self) -> Option<(Millis, i64)> {
        self.end
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test's seconds, made small and positive")]
fn millis_of(seconds: f64) -> Millis {
    (seconds * 1000.0).clamp(0.0, 1e12) as Millis
}

fn words(command: &Value) -> Vec<String> {
    command.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// Whether a probe says no.
pub(super) fn fails(probe: &Value, image: &str) -> bool {
    if probe.is_null() {
        return false;
    }
    if image == "sick" {
        return true;
    }
    let command = words(&probe["exec"]["command"]);
    !command.is_empty() && Program::of_command(&command).ends().is_some_and(|(_, code)| code != 0)
}

/// What the command of a probe writes; none when it has none.
pub(super) fn said(probe: &Value) -> Option<String> {
    let command = words(&probe["exec"]["command"]);
    let lines = (!command.is_empty()).then(|| Program::of_command(&command).lines)?;
    Some(lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n"))
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    Waiting,
    Running { since: Millis },
    Ended { began: Millis, at: Millis, code: i64 },
}

/// What has become of a container by a certain time.
pub(super) struct Life {
    pub(super) now: Now,
    pub(super) before: Option<(Millis, Millis, i64)>,
    pub(super) restarts: u32,
    pub(super) lines: Vec<(Millis, String)>,
}

impl Life {
    /// The life of a program that starts at `start` under a restart policy, seen at `now`. Whoever kills it does so at these
    /// moments, and leaves these codes.
    pub(super) fn of(
        program: &Program,
        policy: &str,
        start: Millis,
        now: Millis,
        delays: &Delays,
        kills: &[(Millis, i64)],
    ) -> Self {
        let mut life = Self { now: Now::Waiting, before: None, restarts: 0, lines: Vec::new() };
        let mut began = start;
        let mut wait = delays.back_off.max(1);
        while began <= now {
            let own = program.end.map(|(after, code)| (began + after, code));
            let killed = kills.iter().copied().filter(|(at, _)| *at >= began).min();
            let end = own.into_iter().chain(killed).min();
            let lines = program.lines.iter().map(|(after, line)| (began + after, line.clone()));
            life.lines.extend(lines.filter(|(at, _)| *at <= now && end.is_none_or(|(end, _)| *at <= end)));
            let Some((at, code)) = end.filter(|(at, _)| *at <= now) else {
                life.now = Now::Running { since: began };
                return life;
            };
            let again = match policy {
                "Never" => false,
                "OnFailure" => code != 0,
                _ => true,
            };
            if !again {
                life.now = Now::Ended { began, at, code };
                return life;
            }
            life.before = Some((began, at, code));
            life.now = Now::Waiting;
            began = at + wait;
            // Longer from time to time, as the real thing does; so the loop ends soon, too.
            wait = wait.saturating_mul(2);
            if began <= now {
                life.restarts += 1;
            }
        }
        life
    }
}
