//! "Did you mean": the known word nearest to an unknown one.

/// More words than this are not looked at: a hint is not worth a long search.
const MAX_CANDIDATES: usize = 1000;

/// The nearest of the known words, when it is near enough to be a slip of the fingers.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let allowed = if word.len() <= 4 { 1 } else { 2 };
    let folded = word.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .take(MAX_CANDIDATES)
        .filter(|candidate| candidate.len() <= 64 && candidate.len().abs_diff(word.len()) <= allowed)
        .map(|candidate| (distance(&folded, &candidate.to_ascii_lowercase().replace('-', "_")), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `; did you mean …?` or nothing: the end of an error.
pub(crate) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |candidate| format!("; did you mean `{candidate}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + replace);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["image", "volumes", "volumes_from", "depends_on", "environment", "dns"];
        for (word, nearest_word) in [
            ("imagee", Some("image")),
            ("iamge", Some("image")),
            ("volume", Some("volumes")),
            ("depends-on", Some("depends_on")),
            ("Environment", Some("environment")),
            ("enviroment", Some("environment")),
            ("dnss", Some("dns")),
            ("unrelated", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), nearest_word, "{word}");
        }
    }
}
