//! What names mean while a graph is read, and constants before they are ops.
//!
//! A name is bound to a value of the function being built, to a constant that becomes an op where it is first used, or
//! to nothing (an optional parameter of an inlined function that the call leaves out). A constant belongs to no
//! function, so a region uses it without capturing it, unless it is trained: then it is the main graph's.

use std::collections::HashMap;
use std::rc::Rc;

use indexmap::IndexMap;

use super::super::error::OnnxError;
use super::super::proto::{SparseTensorProto, TensorProto};
use super::super::tensor::TensorReader;
use super::super::trainable::{Role, Roles};
use super::INLINE_ELEMENTS;
use crate::graph::{Function, Value};
use crate::module::Param;
use crate::op::Op;
use crate::origin::Origin;
use crate::tensor::Tensor;
use crate::types::DType;

/// What a name is bound to.
#[derive(Clone, Debug)]
pub(super) enum Binding {
    Value(Value),
    Constant(Rc<Constant>),
    Absent,
}

/// A constant of the model.
#[derive(Debug)]
pub(super) struct Constant {
    name: String,
    value: Tensor,
    origin: Origin,
    /// What training does to it.
    role: Option<Role>,
}

/// The names of one graph, or of one inlined call.
#[derive(Debug, Default)]
pub(super) struct Scope<'a> {
    names: HashMap<&'a str, Binding>,
    /// Names of the graphs around this one, which its own definitions hide.
    captured: HashMap<&'a str, Binding>,
}

impl<'a> Scope<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&Binding> {
        self.names.get(name).or_else(|| self.captured.get(name))
    }

    /// Binds a name, once; an empty one names nothing.
    pub(super) fn bind(&mut self, name: &'a str, binding: Binding) -> Result<(), OnnxError> {
        if !name.is_empty() && self.names.insert(name, binding).is_some() {
            return Err(OnnxError::invalid(format!("value `{name}`"), "is defined twice"));
        }
        Ok(())
    }

    /// Binds a name of an outer graph.
    pub(super) fn capture(&mut self, name: &'a str, binding: Binding) {
        self.captured.insert(name, binding);
    }
}

/// A function under construction, with the constants that it has as ops so far.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) function: Function,
    /// By address; the constant is held so that no other can take its place there.
    constants: HashMap<*const Constant, (Rc<Constant>, Value)>,
    absent: Option<Value>,
}

impl Body {
    pub(super) fn new(name: &str) -> Self {
        Body { function: Function::new(name), constants: HashMap::new(), absent: None }
    }

    /// The value for an operand that is left out.
    pub(super) fn absent(&mut self) -> Value {
        let function = &mut self.function;
        *self.absent.get_or_insert_with(|| {
            let unknown = vec![crate::types::ValueType::Unknown];
            let node = function.add_typed(Op::Absent {}, &[], unknown, Vec::new(), &Origin::named("absent"));
            Value { node, result: 0 }
        })
    }
}

/// All constants met so far, and the parameter store that the larger ones in use go to.
#[derive(Debug)]
pub(super) struct Constants<'a> {
    reader: TensorReader,
    /// What training does to initializers of the main graph.
    roles: Roles,
    /// By message, so that a function inlined many times reads its constants once.
    read: HashMap<*const TensorProto, Rc<Constant>>,
    params: IndexMap<String, Param>,
    /// Parameter name of each constant that has one, by the address of the constant, which is held.
    stored: HashMap<*const Constant, (Rc<Constant>, String)>,
    model: std::marker::PhantomData<&'a TensorProto>,
}

impl<'a> Constants<'a> {
    pub(super) fn new(reader: TensorReader, roles: Roles) -> Self {
        Constants {
            reader,
            roles,
            read: HashMap::new(),
            params: IndexMap::new(),
            stored: HashMap::new(),
            model: std::marker::PhantomData,
        }
    }

    pub(super) fn into_params(self) -> IndexMap<String, Param> {
        self.params
    }

    /// The tensor of an attribute.
    pub(super) fn tensor(&mut self, t: &'a TensorProto) -> Result<Tensor, OnnxError> {
        self.reader.read(t)
    }

    /// The tensor of an attribute, made dense.
    pub(super) fn sparse_tensor(&mut self, t: &'a SparseTensorProto) -> Result<Tensor, OnnxError> {
        self.reader.read_sparse(t)
    }

    /// A constant from a tensor message; `name` and `origin` count the first time only.
    pub(super) fn of_proto(&mut self, t: &'a TensorProto, name: &str, origin: Origin) -> Result<Binding, OnnxError> {
        if let Some(constant) = self.read.get(&std::ptr::from_ref(t)) {
            return Ok(Binding::Constant(constant.clone()));
        }
        let value = self.reader.read(t)?;
        Ok(self.keep(t, Constant { name: name.to_owned(), value, origin, role: None }))
    }

    /// An initializer of the main graph.
    pub(super) fn of_initializer(&mut self, t: &'a TensorProto) -> Result<Binding, OnnxError> {
        let (name, role) = (t.name().to_owned(), self.roles.get(t.name()).copied());
        let value = self.reader.read(t)?;
        let origin = Origin::named(t.name());
        Ok(self.keep(t, Constant { name, value, origin, role }))
    }

    fn keep(&mut self, t: &'a TensorProto, constant: Constant) -> Binding {
        let constant = Rc::new(constant);
        self.read.insert(t, constant.clone());
        Binding::Constant(constant)
    }

    /// Whether training changes what a name is bound to.
    pub(super) fn is_trained(binding: &Binding) -> bool {
        matches!(binding, Binding::Constant(constant) if constant.role == Some(Role::Trained))
    }

    /// A constant from a sparse tensor message.
    pub(super) fn of_sparse(&mut self, t: &'a SparseTensorProto, name: &str) -> Result<Binding, OnnxError> {
        let value = self.reader.read_sparse(t)?;
        Ok(Self::of_tensor(value, name, Origin::named(name)))
    }

    /// A constant from a value.
    pub(super) fn of_tensor(value: Tensor, name: &str, origin: Origin) -> Binding {
        Binding::Constant(Rc::new(Constant { name: name.to_owned(), value, origin, role: None }))
    }

    /// What a name bound to `binding` is in `body`.
    pub(super) fn value(&mut self, body: &mut Body, binding: &Binding) -> Value {
        match binding {
            Binding::Value(value) => *value,
            Binding::Absent => body.absent(),
            Binding::Constant(constant) => {
                let key = Rc::as_ptr(constant);
                if let Some((_, value)) = body.constants.get(&key) {
                    return *value;
                }
                let op = self.op(constant);
                let ty = vec![constant.value.ty().into()];
                let node = body.function.add_typed(op, &[], ty, Vec::new(), &constant.origin);
                let value = Value { node, result: 0 };
                body.constants.insert(key, (constant.clone(), value));
                value
            }
        }
    }

    fn op(&mut self, constant: &Rc<Constant>) -> Op {
        let value = &constant.value;
        if constant.role.is_none() && (value.numel() <= INLINE_ELEMENTS || value.dtype() == DType::Str) {
            return Op::Constant { value: value.clone() };
        }
        let (params, roles) = (&mut self.params, &self.roles);
        let (_, name) = self.stored.entry(Rc::as_ptr(constant)).or_insert_with(|| {
            let mut name = constant.name.clone();
            let mut copies = 1;
            // Names of what is trained are theirs.
            let reserved = |name: &String| constant.role.is_none() && roles.contains_key(name);
            while params.contains_key(&name) || reserved(&name) {
                copies += 1;
                name = format!("{}__{copies}", constant.name);
            }
            let trainable = constant.role == Some(Role::Trained);
            params.insert(name.clone(), Param { value: value.clone(), trainable });
            (constant.clone(), name)
        });
        Op::Param { name: name.clone(), ty: value.ty() }
    }
}
