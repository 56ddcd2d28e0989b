//! The walk over a module: binds operands, applies rules, checks declared types, collects what is missing.
//!
//! Functions are built anew, so a rule never sees a half-replaced graph and old ops need no deletion. A region is
//! legalized for the types (and known values) of the operands that it gets, or into the surrounding function when it
//! always runs.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use frit_ir::builder::Builder;
use frit_ir::{Function, Module, NodeId, Op, Param, Symbol, Tensor, TensorType, Value, ValueType};
use indexmap::IndexMap;

use super::context::Ctx;
use super::error::{Fail, LegalizeError, Report, node_name};
use super::table;
use super::{LegalizeOptions, LegalizeStats};
use crate::shape::{HostInts, Values};

/// What one run over a module shares.
pub(super) struct Session<'s> {
    pub(super) params: &'s IndexMap<String, Param>,
    options: &'s LegalizeOptions,
    replaced: Cell<usize>,
    overruled: Cell<usize>,
    inlined: Cell<usize>,
    report: RefCell<Report>,
    needs: RefCell<Option<(BTreeSet<String>, String)>>,
    /// Inputs without a shape.
    shapeless: RefCell<Vec<String>>,
    symbols: RefCell<HashSet<String>>,
    /// The module lacks what import refused: errors may follow from that.
    partial: bool,
}

/// Ops that regions written out where they stand may come to: loops inside loops multiply.
const INLINE_BUDGET: usize = 1 << 16;

impl<'s> Session<'s> {
    fn new(module: &'s Module, options: &'s LegalizeOptions, partial: bool) -> Self {
        Session {
            params: &module.params,
            options,
            replaced: Cell::new(0),
            overruled: Cell::new(0),
            inlined: Cell::new(0),
            report: RefCell::default(),
            needs: RefCell::default(),
            shapeless: RefCell::default(),
            symbols: RefCell::new(symbols_of(module)),
            partial,
        }
    }

    /// Fails as unsupported, unless that may follow from what import left out.
    pub(super) fn lacking<T>(&self, reason: &str) -> Result<T, Fail> {
        Err(if self.partial { Fail::Poisoned } else { Fail::Unsupported(reason.to_owned()) })
    }

    /// Counts ops about to be written out; false: too many in all.
    pub(super) fn may_inline(&self, ops: usize) -> bool {
        self.inlined.set(self.inlined.get().saturating_add(ops.max(1)));
        self.inlined.get() <= INLINE_BUDGET
    }

    /// A symbol that the module does not use yet.
    pub(super) fn fresh(&self, what: &str) -> Symbol {
        let mut taken = self.symbols.borrow_mut();
        let mut n = 0usize;
        loop {
            let symbol = Symbol::new(&format!("{what}{n}"));
            if taken.insert(symbol.name().to_owned()) {
                return symbol;
            }
            n += 1;
        }
    }
}

/// Which inputs of the entry function each input of a function depends on.
pub(super) type Bound = HashMap<Value, BTreeSet<String>>;

/// What an old value became.
#[derive(Clone, Copy)]
pub(super) enum Slot {
    /// This value.
    Is(Value),
    /// An input that is left out.
    Absent,
    /// Its op is not supported; dependents are skipped.
    Poisoned,
}

/// What a region's input is bound to.
pub(super) struct Argument {
    pub(super) ty: ValueType,
    pub(super) ints: Option<Rc<HostInts>>,
    pub(super) tensor: Option<Tensor>,
    pub(super) inputs: BTreeSet<String>,
}

/// Legalizes every function of a module.
pub(super) fn run(module: &mut Module, options: &LegalizeOptions) -> Result<LegalizeStats, LegalizeError> {
    let session = Session::new(module, options, false);
    let mut functions = IndexMap::with_capacity(module.functions.len());
    for (name, old) in &module.functions {
        functions.insert(name.clone(), entry(&session, old)?);
    }
    let report = session.report.take();
    if !report.entries.is_empty() {
        return Err(LegalizeError::Unsupported(report));
    }
    let shapeless = session.shapeless.take();
    if !shapeless.is_empty() {
        return Err(LegalizeError::Shapeless { inputs: shapeless });
    }
    if let Some((inputs, node)) = session.needs.take() {
        return Err(LegalizeError::NeedsValues { inputs: inputs.into_iter().collect(), node });
    }
    // While every op is there: passes delete ops, what those needed stays.
    functions.values_mut().for_each(Function::state_needs);
    let stats = LegalizeStats { replaced: session.replaced.get(), overruled: session.overruled.get() };
    module.functions = functions;
    Ok(stats)
}

/// What a partial module lacks besides.
pub(super) fn missing(module: &Module) -> Report {
    let options = LegalizeOptions::default();
    let session = Session::new(module, &options, true);
    for old in module.functions.values() {
        // An error ends the walk of one function: the report so far stands.
        let _ = entry(&session, old);
    }
    session.report.take()
}

fn symbols_of(module: &Module) -> HashSet<String> {
    let mut names = HashSet::new();
    for f in module.functions.values() {
        names.extend(f.symbols.keys().map(|s| s.name().to_owned()));
        for node in f.nodes() {
            for t in f.node(node).results().iter().filter_map(ValueType::tensor) {
                for dim in &t.dims {
                    dim.visit_symbols(&mut |s| {
                        names.insert(s.name().to_owned());
                    });
                }
            }
        }
    }
    names
}

fn entry(session: &Session<'_>, old: &Function) -> Result<Function, LegalizeError> {
    let mut target = Function::new(&old.name);
    target.donations = old.donations.clone();
    let (mut values, mut bound, mut slots) = (Values::default(), Bound::new(), HashMap::new());
    for (index, input) in old.input_values().enumerate() {
        let Op::Input { name, ty } = old.op(input) else { continue };
        let mut ty = ty.clone();
        let fixed = session.options.fixed.get(name);
        if let Some(tensor) = fixed {
            ty = fixed_type(name, &ty, tensor)?;
        }
        let open = is_open(&ty);
        if open && !session.partial {
            session.shapeless.borrow_mut().push(name.clone());
        }
        let value = target.add_input(name, ty);
        if let Some(origin) = old.inputs().get(index).map(|&id| old.node(id).origin.clone()) {
            target.set_origin(value.node, origin);
        }
        match fixed {
            Some(tensor) => values.fix(value, tensor.clone()),
            None => _ = bound.insert(value, BTreeSet::from([name.clone()])),
        }
        slots.insert(input, if open { Slot::Poisoned } else { Slot::Is(value) });
    }
    target.symbols = old.symbols.clone();
    old.requirements().iter().for_each(|r| target.require(r.clone()));
    body(session, old, &mut target, &mut values, &bound, &mut slots)?;
    for output in old.outputs() {
        match slots.get(&output.value) {
            Some(Slot::Is(value)) => target.add_output(&output.name, *value),
            Some(Slot::Poisoned) => {}
            Some(Slot::Absent) if session.partial => {}
            Some(Slot::Absent) | None => {
                return Err(LegalizeError::Invalid {
                    node: output.name.clone(),
                    op: "output".to_owned(),
                    message: "nothing computes this output".to_owned(),
                });
            }
        }
    }
    Ok(target)
}

/// Whether some part of a type is not known.
fn is_open(ty: &ValueType) -> bool {
    match ty {
        ValueType::Tensor(_) => false,
        ValueType::Sequence(e) | ValueType::Optional(e) | ValueType::Map(_, e) => is_open(e),
        ValueType::Unknown => true,
    }
}

/// The input's type with the extents of the value that it is fixed to.
fn fixed_type(name: &str, declared: &ValueType, tensor: &Tensor) -> Result<ValueType, LegalizeError> {
    let given = tensor.ty();
    let fits = match declared {
        ValueType::Tensor(t) => agrees(t, &given),
        ValueType::Unknown => true,
        ValueType::Sequence(_) | ValueType::Optional(_) | ValueType::Map(..) => false,
    };
    if fits {
        return Ok(given.into());
    }
    let (declared, given) = (declared.to_string(), given.to_string());
    Err(LegalizeError::Fixed { input: name.to_owned(), declared, given })
}

/// Whether two types can be the same: no element type, rank or pair of known extents differs.
fn agrees(a: &TensorType, b: &TensorType) -> bool {
    let same = |(x, y): (&frit_ir::Dim, &frit_ir::Dim)| x.known().is_none() || y.known().is_none() || x == y;
    a.dtype == b.dtype && a.rank() == b.rank() && a.dims.iter().zip(&b.dims).all(same)
}

/// Legalizes a region as a function of its own. `None`: something in it is not supported (and reported).
pub(super) fn region(
    session: &Session<'_>,
    old: &Function,
    arguments: Vec<Argument>,
) -> Result<Option<Function>, LegalizeError> {
    let mut target = Function::new(&old.name);
    target.symbols = old.symbols.clone();
    old.requirements().iter().for_each(|r| target.require(r.clone()));
    let (mut values, mut bound, mut slots) = (Values::default(), Bound::new(), HashMap::new());
    for (input, argument) in old.input_values().zip(arguments) {
        let Op::Input { name, .. } = old.op(input) else { continue };
        let value = target.add_input(name, argument.ty);
        target.set_origin(value.node, old.node(input.node).origin.clone());
        if let Some(ints) = argument.ints {
            values.fix_ints(value, ints);
        }
        if let Some(tensor) = argument.tensor {
            values.fix(value, tensor);
        }
        bound.insert(value, argument.inputs);
        slots.insert(input, Slot::Is(value));
    }
    body(session, old, &mut target, &mut values, &bound, &mut slots)?;
    for output in old.outputs() {
        match slots.get(&output.value) {
            Some(Slot::Is(value)) => target.add_output(&output.name, *value),
            Some(Slot::Poisoned | Slot::Absent) | None => return Ok(None),
        }
    }
    Ok(Some(target))
}

/// Legalizes the ops of `old` into `target`; `slots` holds what its inputs became and then what every value became.
pub(super) fn body(
    session: &Session<'_>,
    old: &Function,
    target: &mut Function,
    values: &mut Values,
    bound: &Bound,
    slots: &mut HashMap<Value, Slot>,
) -> Result<(), LegalizeError> {
    let order = old.toposort().ok_or_else(|| LegalizeError::Cycle(old.name.clone()))?;
    let live = old.live();
    for id in order {
        if matches!(old.node(id).op, Op::Input { .. }) {
            continue;
        }
        let stated = target.requirements().len();
        let made = node(session, old, id, target, values, bound, slots)?;
        if !live.contains(&id) {
            // What nothing uses asks for nothing.
            target.retract_requirements(stated);
        }
        for result in 0..old.node(id).results().len() {
            let slot = match &made {
                Some(made) => made.get(result).copied().unwrap_or(Slot::Poisoned),
                None => Slot::Poisoned,
            };
            if let Slot::Is(value) = slot {
                // Evaluated as they appear, so that no evaluation follows a long chain.
                values.ints(target, session.params, value);
            }
            slots.insert(Value { node: id, result }, slot);
        }
    }
    Ok(())
}

/// One op; `None`: poisoned.
fn node(
    session: &Session<'_>,
    old: &Function,
    id: NodeId,
    target: &mut Function,
    values: &mut Values,
    bound: &Bound,
    slots: &HashMap<Value, Slot>,
) -> Result<Option<Vec<Slot>>, LegalizeError> {
    let node = old.node(id);
    if matches!(node.op, Op::Absent {}) {
        return Ok(Some(vec![Slot::Absent]));
    }
    let mut operands = Vec::with_capacity(node.operands().len());
    for operand in node.operands() {
        match slots.get(operand) {
            Some(Slot::Is(value)) => operands.push(Some(*value)),
            Some(Slot::Absent) => operands.push(None),
            Some(Slot::Poisoned) | None => {
                note_unknown(session, node);
                return Ok(None);
            }
        }
    }
    let Op::Onnx { domain, op_type, since_version, attributes } = &node.op else {
        return copied(session, node, operands, target).map(Some);
    };
    session.replaced.set(session.replaced.get() + 1);
    let Some(row) = table::find(domain, op_type, *since_version) else {
        note_unknown(session, node);
        return Ok(None);
    };
    let builder = Builder { function: &mut *target, origin: node.origin.clone(), numerics: session.options.numerics };
    let mut context = Ctx {
        b: builder,
        op_type,
        version: *since_version,
        attributes,
        operands: operands.clone(),
        regions: node.regions(),
        declared: node.results(),
        values,
        bound,
        session,
    };
    let made = (row.rule)(&mut context);
    match made.and_then(|made| checked(session, old, id, target, made)) {
        Ok(made) => Ok(Some(made.into_iter().map(Slot::Is).collect())),
        Err(fail) => failed(session, node, target, bound, &operands, fail).map(|()| None),
    }
}

/// A poisoned operand makes an operator silent, unless no rule would take it: the report names every such operator, those
/// of regions too. Import bounds the nesting of regions, so recursion is safe.
fn note_unknown(session: &Session<'_>, node: &frit_ir::Node) {
    if let Op::Onnx { domain, op_type, since_version, .. } = &node.op
        && table::find(domain, op_type, *since_version).is_none()
    {
        report(session, node, NO_RULE.to_owned());
    }
    for region in node.regions() {
        for id in region.toposort().unwrap_or_default() {
            note_unknown(session, region.node(id));
        }
    }
}

/// The reason of an operator that the table does not have.
pub(super) const NO_RULE: &str = "the operator is not supported";

fn report(session: &Session<'_>, node: &frit_ir::Node, reason: String) {
    if let Op::Onnx { domain, op_type, since_version, .. } = &node.op {
        session.report.borrow_mut().add(domain, op_type, *since_version, reason, node_name(&node.origin));
    }
}

/// A core op as it is, its operands mapped.
fn copied(
    session: &Session<'_>,
    node: &frit_ir::Node,
    operands: Vec<Option<Value>>,
    target: &mut Function,
) -> Result<Vec<Slot>, LegalizeError> {
    let broken = |message: String| LegalizeError::Invalid {
        node: node_name(&node.origin),
        op: node.op.name().to_owned(),
        message,
    };
    let operands: Vec<Value> =
        operands.into_iter().collect::<Option<_>>().ok_or_else(|| broken("takes no absent operand".to_owned()))?;
    let mut regions = Vec::with_capacity(node.regions().len());
    for old in node.regions() {
        let of = |ty| Argument { ty, ints: None, tensor: None, inputs: BTreeSet::new() };
        let arguments = old.signature().inputs.into_iter().map(of).collect();
        match region(session, old, arguments)? {
            Some(new) => regions.push(new),
            None => return Ok(vec![Slot::Poisoned; node.results().len()]),
        }
    }
    let id = if matches!(node.op, Op::Call { .. }) {
        target.add_typed(node.op.clone(), &operands, node.results().to_vec(), regions, &node.origin)
    } else {
        target
            .add_op_with(node.op.clone(), &operands, regions, &node.origin, node.numerics)
            .map_err(|e| broken(e.to_string()))?
    };
    Ok((0..node.results().len()).map(|result| Slot::Is(Value { node: id, result })).collect())
}

/// Checks that every used result is there and of the declared element type.
fn checked(
    session: &Session<'_>,
    old: &Function,
    id: NodeId,
    target: &Function,
    made: Vec<Value>,
) -> Result<Vec<Value>, Fail> {
    for (result, declared) in old.node(id).results().iter().enumerate() {
        let Some(value) = made.get(result) else {
            if old.use_count(Value { node: id, result }) > 0 {
                return Err(Fail::Unsupported(format!("output {result} is used")));
            }
            continue;
        };
        let (ValueType::Tensor(declared), ValueType::Tensor(found)) = (declared, target.ty(*value)) else { continue };
        if declared.dtype != found.dtype {
            return Err(Fail::Invalid(format!("output {result} is {found}, the model declares {declared}")));
        }
        // PyTorch's exporter declares wrong extents for some reductions: what the operator says holds.
        if !agrees(declared, found) {
            session.overruled.set(session.overruled.get() + 1);
        }
    }
    Ok(made)
}

/// Sorts out why a node failed: an invalid model ends here, the rest is noted.
fn failed(
    session: &Session<'_>,
    node: &frit_ir::Node,
    target: &Function,
    bound: &Bound,
    operands: &[Option<Value>],
    fail: Fail,
) -> Result<(), LegalizeError> {
    let op = match &node.op {
        Op::Onnx { op_type, .. } => op_type.clone(),
        other => other.name().to_owned(),
    };
    let name = node_name(&node.origin);
    match fail {
        Fail::Invalid(_) if session.partial => {}
        Fail::Invalid(message) => return Err(LegalizeError::Invalid { node: name, op, message }),
        Fail::Type(error) => {
            // Types that core arithmetic leaves out and extents that can't be compared are limits of ours.
            let ours = operands.iter().flatten().any(|v| match target.ty(*v) {
                ValueType::Tensor(t) => {
                    t.dtype.is_storage_only() || t.dtype == frit_ir::DType::Str || t.known_dims().is_none()
                }
                _ => true,
            });
            if !ours && session.partial {
                return Ok(());
            }
            if !ours {
                return Err(LegalizeError::Invalid { node: name, op, message: error.to_string() });
            }
            report(session, node, error.to_string());
        }
        Fail::Unsupported(reason) => report(session, node, reason),
        Fail::NeedsValue(value, what) => {
            let inputs = depends_on(target, bound, value);
            if inputs.is_empty() {
                report(session, node, format!("{what} must be known when compiling"));
            } else {
                let mut needs = session.needs.borrow_mut();
                needs.get_or_insert_with(|| (BTreeSet::new(), name)).0.extend(inputs);
            }
        }
        Fail::Inner(error) => return Err(*error),
        Fail::Poisoned => {}
    }
    Ok(())
}

/// Names of the entry function's inputs that a value depends on.
pub(super) fn depends_on(f: &Function, bound: &Bound, value: Value) -> BTreeSet<String> {
    let (mut names, mut seen, mut waiting) = (BTreeSet::new(), HashSet::new(), vec![value]);
    while let Some(value) = waiting.pop() {
        if !seen.insert(value.node) {
            continue;
        }
        if let Some(inputs) = bound.get(&value) {
            names.extend(inputs.iter().cloned());
        }
        waiting.extend(f.node(value.node).operands());
    }
    names
}
