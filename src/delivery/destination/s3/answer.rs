//! The answer of a service that refuses, in a few words.

use ground::escape;

/// Characters of a reason: pages of XML say no more.
const REASON_CHARACTERS_MAX: usize = 400;

/// Returns what a service answered, from an error's text: its status, and the code and message of its page of XML. Else the
/// beginning of the text.
pub(super) fn reason_of(text: &str) -> String {
    let between = |begin: &str, end: &str| {
        let (found, _) = text.split_once(begin)?.1.split_once(end)?;
        Some(found.trim()).filter(|found| !found.is_empty())
    };
    let Some((_, answer)) = text.split_once("status code: ") else {
        return escape::text(text).chars().take(REASON_CHARACTERS_MAX).collect();
    };
    let status = answer.split(':').next().unwrap_or(answer).trim();
    let said = [between("<Code>", "</Code>"), between("<Message>", "</Message>")];
    let said = said.into_iter().flatten().collect::<Vec<_>>().join(": ");
    let said = if said.is_empty() { said } else { format!(" ({said})") };
    escape::text(&format!("the service answered {status}{said}"))
        .chars()
        .take(REASON_CHARACTERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::reason_of;

    #[test]
    fn an_answer_is_told_by_its_status_code_and_message() {
        let before = "Generic S3 error: Error performing list request: Error performing GET http://s3/b?list-type=2 in 5ms - \
                      Server returned non-2xx status code: 404 Not Found";
        let page = "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>It does not exist</Message></Error>";
        let expected = "the service answered 404 Not Found (NoSuchBucket: It does not exist)";
        assert_eq!(reason_of(&format!("{before}: {page}")), expected);
        assert_eq!(reason_of(&format!("{before}: ")), "the service answered 404 Not Found");
        assert_eq!(reason_of("HTTP error: connection refused"), "HTTP error: connection refused");
        assert_eq!(reason_of(&"x".repeat(5000)).len(), 400);
    }
}
