//! Paths as text: joined and cleaned without looking at a disk.

/// A path of the file, made absolute: joined to the project directory unless it is absolute or begins with `~`, which
/// is left as written. Whether it may be used is for the policy to say.
pub(super) fn resolve(directory: &str, path: &str) -> String {
    if path.starts_with('~') {
        path.to_owned()
    } else if path.starts_with('/') {
        clean(path)
    } else {
        clean(&format!("{directory}/{path}"))
    }
}

/// An absolute path without `.`, `..`, doubled or trailing slashes.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The directory of a file, both absolute and clean.
pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_cleaned() {
        for (path, resolved) in [
            ("./x", "/opt/t/acme/x"),
            (".", "/opt/t/acme"),
            ("..", "/opt/t"),
            ("../../../../etc/passwd", "/etc/passwd"),
            ("a/./b//c/../d/", "/opt/t/acme/a/b/d"),
            ("/etc/../var", "/var"),
            ("/", "/"),
            ("~/.ssh", "~/.ssh"),
        ] {
            assert_eq!(resolve("/opt/t/acme", path), resolved, "{path}");
        }
    }
}
