//! Where a node came from: its name, and the line of PyTorch source that the exporter recorded.

use super::super::proto::NodeProto;
use crate::origin::Origin;

/// The origin of a node; `caller` is that of the call it was inlined from.
pub(super) fn origin(node: &NodeProto, caller: Option<&Origin>) -> Origin {
    let first_output = node.output.iter().find(|o| !o.is_empty()).map(String::as_str);
    let name = Some(node.name()).filter(|n| !n.is_empty()).or(first_output).unwrap_or(node.op_type());
    let name = match caller.and_then(|c| c.name.as_deref()) {
        Some(outer) => format!("{outer}/{name}").into(),
        None => name.into(),
    };
    let source = source(node).map(Into::into).or_else(|| caller.and_then(|c| c.source.clone()));
    Origin { name: Some(name), source }
}

/// `file:line in function`.
fn source(node: &NodeProto) -> Option<String> {
    let trace = node.metadata_props.iter().find(|p| p.key() == "pkg.torch.onnx.stack_trace");
    match trace {
        Some(trace) => trace.value().lines().rev().find_map(python_frame),
        None => {
            let frames = || node.doc_string().lines().filter_map(legacy_frame);
            // The innermost frames come first; those of PyTorch itself say little.
            let own = frames().find(|(file, ..)| !file.contains("/torch/"));
            own.or_else(|| frames().next()).map(|(file, line, function)| format!("{file}:{line} in {function}"))
        }
    }
}

/// A frame as Python prints it: `File "model.py", line 12, in forward`.
fn python_frame(line: &str) -> Option<String> {
    let (file, rest) = line.trim().strip_prefix("File \"")?.split_once("\", line ")?;
    let (number, function) = rest.split_once(", in ").unwrap_or((rest, "?"));
    let number: u64 = number.trim().parse().ok()?;
    Some(format!("{file}:{number} in {function}"))
}

/// A frame as the older exporter prints it: `model.py(12): forward`.
fn legacy_frame(line: &str) -> Option<(&str, u64, &str)> {
    let (place, function) = line.trim().split_once("): ")?;
    let (file, number) = place.rsplit_once('(')?;
    Some((file, number.parse().ok()?, function))
}

#[cfg(test)]
mod tests {
    use super::super::super::proto::StringStringEntryProto;
    use super::*;

    fn named(name: &str) -> NodeProto {
        NodeProto { name: Some(name.into()), ..NodeProto::default() }
    }

    #[test]
    fn the_last_frame_of_a_stack_trace_is_the_source() {
        let mut node = named("node_add");
        node.metadata_props.push(StringStringEntryProto {
            key: Some("pkg.torch.onnx.stack_trace".into()),
            value: Some("File \"a.py\", line 3, in outer\n    x()\nFile \"b.py\", line 44, in inner\n    y()".into()),
        });
        assert_eq!(origin(&node, None).to_string(), "node_add (b.py:44 in inner)");
    }

    #[test]
    fn the_first_own_frame_of_an_older_export_is_the_source() {
        let mut node = named("Gemm_0");
        node.doc_string = Some("/lib/torch/nn/functional.py(1848): linear\nnet/m.py(7): forward\nmain.py(2): f".into());
        assert_eq!(origin(&node, None).to_string(), "Gemm_0 (net/m.py:7 in forward)");
    }

    #[test]
    fn a_node_without_a_name_goes_by_its_first_output() {
        let node = NodeProto { output: vec![String::new(), "y".into()], ..NodeProto::default() };
        assert_eq!(origin(&node, None), Origin::named("y"));
        assert_eq!(origin(&node, Some(&Origin::named("call"))), Origin::named("call/y"));
    }
}
