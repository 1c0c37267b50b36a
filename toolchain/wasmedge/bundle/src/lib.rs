//! What a container's OCI configuration needs before the libraries read it, so that a CDI specification of any shape
//! does for a wasm pod what it does for a runc pod.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Completes `config.json` in a bundle, the container's folder, where something is missing in it.
///
/// # Errors
/// The file cannot be read or written, or is not JSON.
pub fn complete(bundle: &Path) -> Result<()> {
    let file = bundle.join("config.json");
    let text = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let found: Value = serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    let mut config = found.clone();
    name_bind_mounts(&mut config);
    run_prestart_hooks_once(&mut config);
    if config == found {
        return Ok(());
    }
    let new = bundle.join("config.json.new");
    fs::write(&new, serde_json::to_vec(&config)?)
        .and_then(|()| fs::set_permissions(&new, fs::metadata(&file)?.permissions()))
        .and_then(|()| fs::rename(&new, &file))
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// Gives every bind mount the type `bind`.
///
/// By OCI's specification the option `bind` or `rbind` makes a bind mount whatever the type, and so runc has it.
/// libcontainer goes by the type, and takes a file without one for a folder.
fn name_bind_mounts(config: &mut Value) {
    for mount in config.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let options = mount["options"].as_array().into_iter().flatten();
        if options.filter_map(Value::as_str).any(|option| option == "bind" || option == "rbind") {
            mount["type"] = json!("bind");
        }
    }
}

/// Puts the hooks of `prestart` before those of `createRuntime`, where they run at the same moment, and leaves an empty
/// list.
///
/// containerd-shimkit takes the list for granted: with hooks and no such list it dies. What is in the list it runs a
/// second time, and does not look at how that ended.
fn run_prestart_hooks_once(config: &mut Value) {
    let Some(hooks) = config.get_mut("hooks").and_then(Value::as_object_mut) else {
        return;
    };
    let mut taken = |stage| match hooks.remove(stage) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let runtime = [taken("prestart"), taken("createRuntime")].concat();
    hooks.insert("prestart".into(), json!([]));
    hooks.insert("createRuntime".into(), json!(runtime));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_mount_gets_its_type_and_others_keep_theirs() {
        let mut config = json!({"mounts": [
            {"destination": "/lib/a", "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]},
            {"destination": "/lib/b", "type": "none", "options": ["bind"]},
            {"destination": "/tmp", "type": "tmpfs", "options": ["nosuid"]},
            {"destination": "/proc", "type": "proc"},
        ]});
        name_bind_mounts(&mut config);
        let types: Vec<_> = config["mounts"].as_array().unwrap().iter().map(|mount| &mount["type"]).collect();
        assert_eq!(types, ["bind", "bind", "tmpfs", "proc"]);
    }

    #[test]
    fn prestart_hooks_come_first_among_those_of_the_runtime_and_others_stay() {
        let [first, second, third] = ["/first", "/second", "/third"].map(|path| json!({"path": path, "timeout": 3}));
        let mut config = json!({"hooks": {"createRuntime": [second], "prestart": [first], "createContainer": [third]}});
        run_prestart_hooks_once(&mut config);
        let expected = json!({"prestart": [], "createRuntime": [first, second], "createContainer": [third]});
        assert_eq!(config["hooks"], expected);
    }

    #[test]
    fn no_hooks_stay_no_hooks() {
        let mut config = json!({"ociVersion": "1.1.0"});
        run_prestart_hooks_once(&mut config);
        name_bind_mounts(&mut config);
        assert_eq!(config, json!({"ociVersion": "1.1.0"}));
    }

    #[test]
    fn only_a_file_that_lacks_something_is_written() {
        let bundle = std::env::temp_dir().join(format!("bundle-{}", std::process::id()));
        let file = bundle.join("config.json");
        fs::create_dir_all(&bundle).unwrap();
        let whole = r#"{ "mounts": [{"destination": "/proc", "type": "proc"}] }"#;
        fs::write(&file, whole).unwrap();
        complete(&bundle).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), whole);
        fs::write(&file, r#"{"mounts": [{"destination": "/a", "options": ["bind"]}]}"#).unwrap();
        complete(&bundle).unwrap();
        let config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(config["mounts"][0]["type"], "bind");
        fs::write(&file, "{").unwrap();
        assert!(complete(&bundle).unwrap_err().to_string().ends_with("config.json is not JSON"));
        fs::remove_dir_all(bundle).unwrap();
    }
}
