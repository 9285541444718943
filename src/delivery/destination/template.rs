//! A path that depends on the application.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use ground::ids::AppName;

/// The placeholder for the application's name.
pub const PLACEHOLDER: &str = "{app}";

/// A path in which `{app}` stands for the application's name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Template(PathBuf);

impl Template {
    /// Takes `path` as it is, with or without `{app}`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the path with `{app}` in it.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of one application.
    pub fn of(&self, app: &AppName) -> PathBuf {
        // Only text holds a placeholder.
        let path = self.0.to_str().map(|text| text.replace(PLACEHOLDER, app.as_str()).into());
        path.unwrap_or_else(|| self.0.clone())
    }

    /// True if applications have different paths.
    pub fn depends_on_app(&self) -> bool {
        self.0.to_str().is_some_and(|text| text.contains(PLACEHOLDER))
    }

    /// Returns the first thing in braces that is no placeholder.
    pub fn unknown_placeholder(&self) -> Option<String> {
        let text = self.0.to_string_lossy().replace(PLACEHOLDER, "");
        let begin = text.find(['{', '}'])?;
        let end = text[begin..].find('}').map_or(text.len(), |length| begin + length + 1);
        Some(text[begin..end].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_has_its_place_in_the_path() {
        let app: AppName = "web".parse().expect("a name");
        let template = Template::new("/srv/{app}/{app}-1");
        assert_eq!((template.of(&app), template.depends_on_app()), ("/srv/web/web-1".into(), true));
        let template = Template::new("/srv/app");
        assert_eq!((template.of(&app), template.depends_on_app()), ("/srv/app".into(), false));
    }

    #[test]
    fn braces_hold_a_placeholder_or_a_mistake() {
        let unknown = |path: &str| Template::new(path).unknown_placeholder();
        assert_eq!(unknown("/srv/{app}/x-{app}"), None);
        assert_eq!(unknown("/srv/{aap}").as_deref(), Some("{aap}"));
        assert_eq!(unknown("/srv/{app").as_deref(), Some("{app"));
        assert_eq!(unknown("/srv/app}").as_deref(), Some("}"));
    }
}
