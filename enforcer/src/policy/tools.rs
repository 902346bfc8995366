//! What the hook's tools may do: the sections `file_paths`, `web_tools` and `tools` of the native form.

use super::{
    model::{PathLists, Tools, WebTools},
    native::{PathsSection, ToolsSection, WebSection},
    shape::Object,
};

/// Turns `file_paths` into the model.
pub(super) fn paths(section: Option<Object<PathsSection>>) -> PathLists {
    let section = section.map(|section| section.0).unwrap_or_default();
    PathLists {
        whitelist: section.whitelist,
        blacklist: section.blacklist,
    }
}

/// Turns `web_tools` into the model.
pub(super) fn web(section: Option<Object<WebSection>>) -> WebTools {
    let section = section.map(|section| section.0).unwrap_or_default();
    WebTools {
        whitelist: section.whitelist,
        allow_all_domains: section.allow_all_domains,
        allowed_domains: section.allowed_domains,
        blocked_domains: section.blocked_domains,
    }
}

/// Turns `tools` into the model.
pub(super) fn others(section: Option<Object<ToolsSection>>) -> Tools {
    let section = section.map(|section| section.0).unwrap_or_default();
    Tools {
        always_allowed: section.always_allowed,
    }
}
