//! What external data may be, and the ways a file can try to reach out of its folder.

use super::*;

fn folder_with(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), bytes).unwrap();
    folder
}

fn refusal(folder: &Path, location: &str) -> String {
    ExternalFiles::new(Some(folder)).map(location).unwrap_err().to_string()
}

#[test]
fn a_plain_file_is_mapped_once() {
    let folder = folder_with("w.bin", &[1, 2, 3]);
    let mut files = ExternalFiles::new(Some(folder.path()));
    let first = files.map("w.bin").unwrap();
    assert_eq!(&first[..], [1, 2, 3]);
    assert!(Arc::ptr_eq(&first, &files.map("w.bin").unwrap()));
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub/v.bin"), [9]).unwrap();
    assert_eq!(&files.map("./sub/v.bin").unwrap()[..], [9]);
}

#[test]
fn paths_out_of_the_folder_are_refused() {
    let folder = folder_with("w.bin", &[1]);
    std::fs::create_dir(folder.path().join("model")).unwrap();
    let model = folder.path().join("model");
    let absolute = folder.path().join("w.bin").to_string_lossy().into_owned();
    for location in ["../w.bin", "x/../../w.bin", "", ".", "x/./..", &absolute, "w\0.bin"] {
        assert!(refusal(&model, location).contains("not a relative path"), "{location}");
    }
    assert!(matches!(ExternalFiles::new(Some(&model)).map("none.bin"), Err(OnnxError::Io { .. })));
    let nowhere = ExternalFiles::new(None).map("w.bin").unwrap_err().to_string();
    assert!(nowhere.contains("not read from a folder"), "{nowhere}");
}

#[cfg(unix)]
#[test]
fn links_and_devices_are_refused() {
    let folder = folder_with("w.bin", &[1]);
    let outside = folder_with("secret", &[42]);
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink(outside.path().join("secret"), at("link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), at("folder")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
    std::os::unix::fs::symlink(at("w.bin"), at("within")).unwrap();
    for location in ["link", "folder/secret", "zero", "within"] {
        assert!(refusal(folder.path(), location).contains("symbolic link"), "{location}");
    }
    std::fs::hard_link(outside.path().join("secret"), at("hard")).unwrap();
    assert!(refusal(folder.path(), "hard").contains("more than one name"));
    std::fs::create_dir(at("sub")).unwrap();
    assert!(refusal(folder.path(), "sub").contains("not a regular file"));
    assert!(matches!(ExternalFiles::new(Some(folder.path())).map("w.bin/x"), Err(OnnxError::Io { .. })));
}
