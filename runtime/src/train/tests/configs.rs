//! Settings: defaults, files, what must be refused, what a run is known by.

use std::path::Path;

use crate::train::config::{DataConfig, Loss, LossKind};
use crate::train::optimizer::DecayGroup;
use crate::train::{Config, Optimizer, OptimizerKind, Schedule};

#[test]
fn defaults_are_the_recipe() {
    let config = Config::from_toml("", "x").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!((config.batch, config.shuffle, config.epochs()), (64, false, 35));
    let optimizer = &config.optimizer;
    assert_eq!((optimizer.kind, optimizer.learning_rate, optimizer.weight_decay), (OptimizerKind::Adamw, 1e-3, 1e-4));
    assert_eq!((optimizer.betas, optimizer.epsilon, optimizer.clip_norm), ([0.9, 0.999], 1e-8, None));
    assert_eq!(config.schedule, Schedule::Exponential { gamma: 0.8 });
    let mnist = Config { data: DataConfig { source: "mnist".to_owned(), ..DataConfig::default() }, ..config };
    assert_eq!(mnist.epochs(), 25);
}

#[test]
fn every_setting_is_written_and_read_again() {
    for name in Schedule::NAMES {
        let group = DecayGroup { pattern: "*.bias".to_owned(), weight_decay: 0.0 };
        let config = Config {
            model: "a \"b\"\\".to_owned(),
            epochs: Some(3),
            seed: u64::from(u32::MAX) + 5,
            patience: Some(2),
            checkpoint_steps: Some(7),
            freeze: vec!["layers.0.*".to_owned()],
            memory_limit: Some(1 << 40),
            data: DataConfig {
                folder: Some("/d".into()),
                inputs: Some("x".to_owned()),
                targets: vec!["y".to_owned()],
                validation: Some("v.csv".into()),
                ..DataConfig::default()
            },
            loss: Loss { kind: LossKind::Bce, output: Some("o".to_owned()), label_smoothing: 0.0 },
            optimizer: Optimizer { clip_norm: Some(0.1), groups: vec![group], ..Optimizer::default() },
            schedule: Schedule::of_name(name).unwrap(),
            ..Config::default()
        };
        config.check().unwrap();
        let text = config.to_toml().unwrap();
        assert_eq!(Config::from_toml(&text, "x").unwrap(), config, "{text}");
    }
    let partial =
        Config::from_toml("[schedule]\nkind = \"one-cycle\"\nmaximum = 0.1\ncycle_momentum = false", "x").unwrap();
    let Schedule::OneCycle { maximum, division, cycle_momentum, .. } = partial.schedule else { panic!("one-cycle") };
    assert_eq!((maximum, division, cycle_momentum), (0.1, 3.0, false));
}

#[test]
fn what_is_no_setting_is_refused_with_its_line() {
    let cases = [
        ("epochs = \"many\"", "line 1"),
        ("batch = 64\nspeed = 3", "line 2: unknown field `speed`"),
        ("[optimizer]\nkind = \"magic\"", "magic"),
        ("[schedule]\nkind = \"exponential\"\nslope = 1.0", "slope"),
        ("[schedule]\nkind = \"sawtooth\"", "sawtooth"),
        ("batch = ", "line 1"),
        ("batch = -1", "line 1"),
    ];
    for (text, expected) in cases {
        let error = Config::from_toml(text, "run.toml").unwrap_err().to_string();
        assert!(error.contains(expected) && error.starts_with("run.toml"), "{text}: {error}");
    }
    assert!(Config::read_file(Path::new("/nowhere/c.toml")).unwrap_err().to_string().contains("/nowhere/c.toml"));
}

#[test]
fn values_without_meaning_are_refused_by_name() {
    let cases = [
        ("epochs = 0", "`epochs`"),
        ("batch = 0", "`batch`"),
        ("patience = 0", "`patience`"),
        ("checkpoint_steps = 0", "`checkpoint_steps`"),
        ("data = {validation_share = 1.0}", "`data.validation_share`"),
        ("data = {validation_share = nan}", "`data.validation_share`"),
        ("loss = {label_smoothing = 1.0}", "`loss.label_smoothing`"),
        ("loss = {label_smoothing = 0.1, kind = \"mse\"}", "`loss.label_smoothing` is for cross-entropy"),
        ("optimizer = {learning_rate = -1.0}", "`optimizer.learning_rate`"),
        ("optimizer = {learning_rate = inf}", "`optimizer.learning_rate`"),
        ("optimizer = {weight_decay = nan}", "`optimizer.weight_decay`"),
        ("optimizer = {betas = [0.9, 1.0]}", "`optimizer.betas`"),
        ("optimizer = {epsilon = 0.0}", "`optimizer.epsilon`"),
        ("optimizer = {momentum = 1.0}", "`optimizer.momentum`"),
        ("optimizer = {nesterov = true}", "`optimizer.nesterov`"),
        ("optimizer = {clip_norm = 0.0}", "`optimizer.clip_norm`"),
        ("optimizer = {groups = [{pattern = \"*\", weight_decay = -1.0}]}", "`optimizer.groups.weight_decay`"),
        ("schedule = {kind = \"exponential\", gamma = 0.0}", "`schedule.gamma`"),
        ("schedule = {kind = \"step\", size = 0}", "`schedule.size`"),
        ("schedule = {kind = \"cosine\", period = 0}", "`schedule.period`"),
        ("schedule = {kind = \"one-cycle\", rise = 1.5}", "`schedule.rise`"),
        ("schedule = {kind = \"one-cycle\", momentum = [0.9, 0.8]}", "`schedule.momentum`"),
        ("schedule = {kind = \"cyclic\", maximum = 1e-9}", "`schedule.maximum`"),
        ("schedule = {kind = \"cyclic\", up = 0}", "`schedule.up`"),
        ("compile = {level = 4}", "`compile.level`"),
    ];
    for (text, expected) in cases {
        let error = Config::from_toml(text, "x").unwrap().check().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn patterns_name_parameters() {
    let text = "freeze = [\"layers.0.*\"]\n[[optimizer.groups]]\npattern = \"*.bias\"\nweight_decay = 0.0\n\
                [[optimizer.groups]]\npattern = \"layers.1.*\"\nweight_decay = 0.5";
    let config = Config::from_toml(text, "x").unwrap();
    assert!(config.is_frozen("layers.0.bias") && !config.is_frozen("layers.1.bias"));
    let decay = |name| config.optimizer.decay_of(name);
    assert_eq!((decay("layers.1.bias"), decay("layers.1.weight"), decay("layers.2.weight")), (0.0, 0.5, 1e-4));
    config.check_patterns(&["layers.0.bias", "layers.1.weight"]).unwrap();
    let error = config.check_patterns(&["layers.1.weight"]).unwrap_err().to_string();
    assert!(error.contains("`layers.0.*`") && error.contains("layers.1.weight"), "{error}");
}

#[test]
fn a_run_is_known_by_what_its_bits_depend_on() {
    let base = Config::from_toml("", "x").unwrap();
    let hash = |text: &str| Config::from_toml(text, "x").unwrap().hash().unwrap();
    let same =
        ["epochs = 50", "patience = 3", "checkpoint_steps = 9", "memory_limit = 5", "data = {folder = \"/elsewhere\"}"];
    same.iter().for_each(|text| assert_eq!(hash(text), base.hash().unwrap(), "{text}"));
    let other = [
        "batch = 32",
        "seed = 1",
        "shuffle = true",
        "model = \"m\"",
        "freeze = [\"a\"]",
        "optimizer = {learning_rate = 0.002}",
        "loss = {label_smoothing = 0.1}",
        "schedule = {kind = \"constant\"}",
        "compile = {math = \"strict\"}",
    ];
    other.iter().for_each(|text| assert_ne!(hash(text), base.hash().unwrap(), "{text}"));
    // Where rates depend on the length of the run, so do its bits.
    let cosine = |epochs: u32| hash(&format!("epochs = {epochs}\nschedule = {{kind = \"cosine\"}}"));
    assert_ne!(cosine(10), cosine(20));
}
