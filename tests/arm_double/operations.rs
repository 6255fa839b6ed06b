//! Long-running operations: what their headers are, and what polls of them say.

use serde_json::{Value, json};

use super::answer::Answer;
use super::clock::{Clock, Millis};
use super::faults::Outcome;
use super::group::{Fate, Group};
use super::world::{Form, Key, State, short};

pub(super) struct Operation {
    /// Of what is made, started or deleted.
    pub(super) resource: String,
    pub(super) group: Option<Key>,
    pub(super) deletes: bool,
    pub(super) began: Millis,
    pub(super) working: Millis,
    /// When it ends and whether well; none: never.
    pub(super) end: Option<(Millis, bool)>,
    pub(super) error: Option<(String, String)>,
}

impl State {
    /// Begins an operation on a group and gives its answer the headers for it.
    pub(super) fn begin(
        &mut self,
        operation: Operation,
        subscription: &str,
        location: &str,
        version: &str,
        answer: Answer,
    ) -> Answer {
        let id = format!("00000000-0000-0000-0000-{:012}", self.number());
        let location = short(location);
        let base = format!(
            "{}/subscriptions/{subscription}/providers/Microsoft.ContainerInstance/locations/{location}",
            self.endpoint
        );
        self.operations.insert(id.clone(), operation);
        let form = self.settings.form;
        let mut answer = answer;
        if matches!(form, Form::AsyncOperation | Form::Both) {
            answer = answer.header("azure-asyncoperation", format!("{base}/operations/{id}?api-version={version}"));
        }
        if matches!(form, Form::Location | Form::Both) {
            answer = answer.header("location", format!("{base}/operationResults/{id}?api-version={version}"));
        }
        answer.retry_after(self.settings.retry_after)
    }

    /// The operation of the last change of a group.
    pub(super) fn operation_for(&self, key: &Key) -> Option<Operation> {
        let group = self.groups.get(key)?;
        let error = match &group.run.fate {
            Fate::Made(Outcome::Error { code, message }) => Some(((*code).to_owned(), (*message).to_owned())),
            _ => None,
        };
        Some(Operation {
            resource: group.id(),
            group: Some(key.clone()),
            deletes: false,
            began: group.run.began,
            working: group.run.began + group.run.delays.pending,
            end: group.settles(),
            error,
        })
    }

    /// GET of `Azure-AsyncOperation`.
    pub(super) fn poll_status(&mut self, id: &str, now: Millis, clock: &Clock) -> Answer {
        let Some(operation) = self.operations.get(id) else { return not_found(id) };
        let done = operation.end.filter(|(at, _)| *at <= now);
        let status = match done {
            Some((_, true)) => "Succeeded",
            Some((_, false)) => "Failed",
            None if operation.deletes => "Deleting",
            None if now < operation.working => "Pending",
            None => "Creating",
        };
        let group = operation.group.as_ref().and_then(|key| self.groups.get(key));
        let says = |group: &&Group| !operation.deletes && !matches!(group.run.fate, Fate::Made(Outcome::Silent { .. }));
        let events = group.filter(says).map(|group| group.events(now, clock)).unwrap_or_default();
        let mut body = json!({
            "id": operation.resource,
            "status": status,
            "startTime": clock.stamp(operation.began),
            "properties": {"events": events},
        });
        if let (Some((at, well)), true) = (done, operation.group.is_some()) {
            body["endTime"] = json!(clock.stamp(at));
            if let (false, Some((code, message))) = (well, &operation.error) {
                body["error"] = json!({"code": code, "message": message});
            }
        }
        let answer = Answer::json(200, body);
        if done.is_some() { answer } else { answer.retry_after(self.settings.retry_after) }
    }

    /// GET of `Location`.
    pub(super) fn poll_result(&mut self, id: &str, url: &str, now: Millis, clock: &Clock) -> Answer {
        let Some(operation) = self.operations.get(id) else { return not_found(id) };
        let Some((_, well)) = operation.end.filter(|(at, _)| *at <= now) else {
            return Answer::json(202, Value::Null)
                .header("location", format!("{}{url}", self.endpoint))
                .retry_after(self.settings.retry_after);
        };
        if let (false, Some((code, message))) = (well, &operation.error) {
            return Answer::error(409, code, message.clone());
        }
        if operation.deletes {
            return Answer::empty(204);
        }
        match operation.group.as_ref().and_then(|key| self.groups.get(key)) {
            Some(group) => Answer::json(200, group.view(now, clock, true)),
            None => Answer::empty(204),
        }
    }
}

fn not_found(id: &str) -> Answer {
    Answer::error(404, "OperationNotFound", format!("The operation '{id}' could not be found."))
}
