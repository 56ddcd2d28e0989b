//! One or more cases for each op of the table.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::builder::Builder;
use crate::op::{BinaryOp, Flag, ReduceKind, ScatterKind, UnaryOp};
use crate::types::Symbol;

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

struct Case {
    op: Op,
    operands: Vec<HostValue>,
    regions: Vec<Function>,
    /// Declared result types, where they are not those of `expected`.
    types: Option<Vec<ValueType>>,
    expected: Vec<HostValue>,
}

fn case(op: Op, operands: Vec<HostValue>, expected: HostValue) -> Case {
    Case { op, operands, regions: Vec::new(), types: None, expected: vec![expected] }
}

fn unary(cases: &mut Vec<Case>) {
    let x = f(&[8], &[-2.5, -1.0, -0.5, 0.0, 0.3, 0.75, 1.0, 3.5]);
    // NumPy in f64, rounded to f32.
    let table: [(UnaryOp, [f64; 8]); 20] = [
        (UnaryOp::Neg, [2.5, 1.0, 0.5, -0.0, -0.3, -0.75, -1.0, -3.5]),
        (UnaryOp::Abs, [2.5, 1.0, 0.5, 0.0, 0.3, 0.75, 1.0, 3.5]),
        (UnaryOp::Sign, [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
        (UnaryOp::Floor, [-3.0, -1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 3.0]),
        (UnaryOp::Ceil, [-2.0, -1.0, -0.0, 0.0, 1.0, 1.0, 1.0, 4.0]),
        (UnaryOp::Trunc, [-2.0, -1.0, -0.0, 0.0, 0.0, 0.0, 1.0, 3.0]),
        (UnaryOp::RoundEven, [-2.0, -1.0, -0.0, 0.0, 0.0, 1.0, 1.0, 4.0]),
        (UnaryOp::Sqrt, [NAN, NAN, NAN, 0.0, 0.547722578048706, 0.8660253882408142, 1.0, 1.8708287477493286]),
        (
            UnaryOp::Exp,
            [
                0.08208499848842621,
                0.3678794503211975,
                0.6065306663513184,
                1.0,
                1.3498588800430298,
                2.117000102996826,
                2.7182817459106445,
                33.11545181274414,
            ],
        ),
        (
            UnaryOp::Expm1,
            [
                -0.9179149866104126,
                -0.6321205496788025,
                -0.39346933364868164,
                0.0,
                0.349858820438385,
                1.1169999837875366,
                1.718281865119934,
                32.11545181274414,
            ],
        ),
        (UnaryOp::Log, [NAN, NAN, NAN, -INF, -1.2039728164672852, -0.28768208622932434, 0.0, 1.2527629137039185]),
        (
            UnaryOp::Log1p,
            [
                NAN,
                -INF,
                -0.6931471824645996,
                0.0,
                0.2623642683029175,
                0.5596157908439636,
                0.6931471824645996,
                1.504077434539795,
            ],
        ),
        (
            UnaryOp::Sin,
            [
                -0.5984721183776855,
                -0.8414709568023682,
                -0.4794255495071411,
                0.0,
                0.29552021622657776,
                0.681638777256012,
                0.8414709568023682,
                -0.35078322887420654,
            ],
        ),
        (
            UnaryOp::Cos,
            [
                -0.8011435866355896,
                0.5403022766113281,
                0.8775825500488281,
                1.0,
                0.9553365111351013,
                0.7316888570785522,
                0.5403022766113281,
                -0.9364566802978516,
            ],
        ),
        (
            UnaryOp::Tan,
            [
                0.747022271156311,
                -1.5574077367782593,
                -0.5463024973869324,
                0.0,
                0.30933627486228943,
                0.9315964579582214,
                1.5574077367782593,
                0.3745856285095215,
            ],
        ),
        (
            UnaryOp::Asin,
            [
                NAN,
                -1.5707963705062866,
                -0.5235987901687622,
                0.0,
                0.30469265580177307,
                0.8480620980262756,
                1.5707963705062866,
                NAN,
            ],
        ),
        (
            UnaryOp::Acos,
            [
                NAN,
                3.1415927410125732,
                2.094395160675049,
                1.5707963705062866,
                1.2661036252975464,
                0.722734272480011,
                0.0,
                NAN,
            ],
        ),
        (
            UnaryOp::Atan,
            [
                -1.1902899742126465,
                -0.7853981852531433,
                -0.46364760398864746,
                0.0,
                0.29145681858062744,
                0.6435011029243469,
                0.7853981852531433,
                1.292496681213379,
            ],
        ),
        (
            UnaryOp::Tanh,
            [
                -0.9866142868995667,
                -0.7615941762924194,
                -0.46211716532707214,
                0.0,
                0.29131263494491577,
                0.6351489424705505,
                0.7615941762924194,
                0.9981778860092163,
            ],
        ),
        (
            UnaryOp::Erf,
            [
                -0.9995930194854736,
                -0.8427007794380188,
                -0.5204998850822449,
                0.0,
                0.3286267817020416,
                0.7111556529998779,
                0.8427007794380188,
                0.9999992847442627,
            ],
        ),
    ];
    for (op, values) in table {
        cases.push(case(Op::Unary(op), vec![x.clone()], f(&[8], &values)));
    }
    let ints = |v: &[f64]| t(DType::I8, &[v.len()], v);
    for (op, values) in [
        (UnaryOp::Neg, [-128.0, -5.0, 0.0, 1.0]),
        (UnaryOp::Abs, [-128.0, 5.0, 0.0, 1.0]),
        (UnaryOp::Sign, [-1.0, 1.0, 0.0, -1.0]),
        (UnaryOp::Not, [127.0, -6.0, -1.0, 0.0]),
    ] {
        cases.push(case(Op::Unary(op), vec![ints(&[-128.0, 5.0, 0.0, -1.0])], ints(&values)));
    }
    cases.push(case(Op::Unary(UnaryOp::Not), vec![b(&[2], &[0, 1])], b(&[2], &[1, 0])));
    cases.push(case(Op::Unary(UnaryOp::Sign), vec![f(&[2], &[-0.0, NAN])], f(&[2], &[-0.0, NAN])));
}

fn binary(cases: &mut Vec<Case>) {
    let (x, y) = (f(&[6], &[5.5, -5.5, 5.5, -1.0, 2.0, 0.0]), f(&[6], &[2.0, 2.0, -2.0, 0.5, -3.0, 0.0]));
    let floats: [(BinaryOp, [f64; 6]); 9] = [
        (BinaryOp::Add, [7.5, -3.5, 3.5, -0.5, -1.0, 0.0]),
        (BinaryOp::Sub, [3.5, -7.5, 7.5, -1.5, 5.0, 0.0]),
        (BinaryOp::Mul, [11.0, -11.0, -11.0, -0.5, -6.0, 0.0]),
        (BinaryOp::Div, [2.75, -2.75, -2.75, -2.0, -0.6666666865348816, NAN]),
        (BinaryOp::Rem, [1.5, -1.5, 1.5, -0.0, 2.0, NAN]),
        (BinaryOp::Pow, [30.25, 30.25, 0.03305784985423088, NAN, 0.125, 1.0]),
        (
            BinaryOp::Atan2,
            [1.2220252752304077, -1.2220252752304077, 1.919567346572876, -1.1071487665176392, 2.5535900592803955, 0.0],
        ),
        (BinaryOp::Min, [2.0, -5.5, -2.0, -1.0, -3.0, 0.0]),
        (BinaryOp::Max, [5.5, 2.0, 5.5, 0.5, 2.0, 0.0]),
    ];
    for (op, values) in floats {
        cases.push(case(Op::Binary(op), vec![x.clone(), y.clone()], f(&[6], &values)));
    }
    let zeros = [f(&[4], &[-0.0, 0.0, NAN, 1.0]), f(&[4], &[0.0, -0.0, 1.0, NAN])];
    cases.push(case(Op::Binary(BinaryOp::Min), zeros.to_vec(), f(&[4], &[-0.0, -0.0, NAN, NAN])));
    cases.push(case(Op::Binary(BinaryOp::Max), zeros.to_vec(), f(&[4], &[0.0, 0.0, NAN, NAN])));
    for (op, values) in [(BinaryOp::Eq, [1, 0, 0, 0]), (BinaryOp::Lt, [0, 1, 0, 0]), (BinaryOp::Le, [1, 1, 0, 0])] {
        let operands = vec![f(&[4], &[-0.0, 1.0, NAN, 3.0]), f(&[4], &[0.0, 2.0, NAN, 2.0])];
        cases.push(case(Op::Binary(op), operands, b(&[4], &values)));
    }
    let ints = |v: &[f64]| t(DType::I32, &[v.len()], v);
    let low = f64::from(i32::MIN);
    let (x, y) = (ints(&[7.0, -7.0, low, 5.0, -1.0, 3.0]), ints(&[2.0, 2.0, -1.0, 0.0, -3.0, 40.0]));
    let integers: [(BinaryOp, [f64; 6]); 12] = [
        (BinaryOp::Add, [9.0, -5.0, f64::from(i32::MAX), 5.0, -4.0, 43.0]),
        (BinaryOp::Sub, [5.0, -9.0, low + 1.0, 5.0, 2.0, -37.0]),
        (BinaryOp::Mul, [14.0, -14.0, low, 0.0, 3.0, 120.0]),
        (BinaryOp::Div, [3.0, -3.0, low, 0.0, 0.0, 0.0]),
        (BinaryOp::Rem, [1.0, -1.0, 0.0, 0.0, -1.0, 3.0]),
        // 3^40 = 12157665459056928801, whose low 32 bits are 0x84f3_8c21 as unsigned.
        (BinaryOp::Pow, [49.0, 49.0, 0.0, 1.0, -1.0, f64::from(12_157_665_459_056_928_801u64 as i32)]),
        (BinaryOp::Min, [2.0, -7.0, low, 0.0, -3.0, 3.0]),
        (BinaryOp::And, [2.0, 0.0, low, 0.0, -3.0, 0.0]),
        (BinaryOp::Or, [7.0, -5.0, -1.0, 5.0, -1.0, 43.0]),
        (BinaryOp::Xor, [5.0, -5.0, f64::from(i32::MAX), 5.0, 2.0, 43.0]),
        (BinaryOp::Shl, [28.0, -28.0, 0.0, 5.0, 0.0, 0.0]),
        (BinaryOp::Shr, [1.0, -2.0, -1.0, 5.0, -1.0, 0.0]),
    ];
    for (op, values) in integers {
        cases.push(case(Op::Binary(op), vec![x.clone(), y.clone()], ints(&values)));
    }
    for (op, values) in [(BinaryOp::And, [0, 0, 1]), (BinaryOp::Or, [0, 1, 1]), (BinaryOp::Xor, [0, 1, 0])] {
        cases.push(case(Op::Binary(op), vec![b(&[3], &[0, 0, 1]), b(&[3], &[0, 1, 1])], b(&[3], &values)));
    }
    let c = b(&[3], &[1, 0, 1]);
    let operands = vec![c, i(&[3], &[1, 2, 3]), i(&[3], &[4, 5, 6])];
    cases.push(case(Op::Select { likely: Flag(false) }, operands, i(&[3], &[1, 5, 3])));
}

fn conversions(cases: &mut Vec<Case>) {
    let cast = |to, saturate| Op::Cast { to, saturate };
    let x = f(&[6], &[-1.5, 300.7, NAN, INF, 2.5, -0.0]);
    cases.push(case(cast(DType::I8, false), vec![x.clone()], t(DType::I8, &[6], &[-1.0, 44.0, 0.0, -1.0, 2.0, 0.0])));
    cases.push(case(cast(DType::I8, true), vec![x.clone()], t(DType::I8, &[6], &[-1.0, 127.0, 0.0, 127.0, 2.0, 0.0])));
    cases.push(case(cast(DType::Bool, false), vec![x.clone()], b(&[6], &[1, 1, 1, 1, 1, 0])));
    let halves = f(&[4], &[2049.0, 65519.0, 65520.0, 5.9604645e-8]);
    cases.push(case(cast(DType::F16, false), vec![halves], t(DType::F16, &[4], &[2048.0, 65504.0, INF, 5.9604645e-8])));
    // 1 + 2^-8 is a tie between two bf16 values; the even one is 1.
    cases.push(case(cast(DType::BF16, false), vec![f(&[1], &[1.00390625])], t(DType::BF16, &[1], &[1.0])));
    cases.push(case(cast(DType::I4, false), vec![f(&[3], &[7.9, 8.0, -9.0])], t(DType::I4, &[3], &[7.0, -8.0, 7.0])));
    cases.push(case(cast(DType::U2, true), vec![f(&[3], &[7.9, 1.5, -9.0])], t(DType::U2, &[3], &[3.0, 1.0, 0.0])));
    cases.push(case(cast(DType::I32, false), vec![i(&[2], &[1 << 32, -1])], t(DType::I32, &[2], &[0.0, -1.0])));
    // Rounded once: 2^60 + 2^36 + 1 is above the tie that f64 would see.
    let large = (1i64 << 60) + (1 << 36) + 1;
    cases.push(case(cast(DType::F32, false), vec![i(&[1], &[large])], f(&[1], &[(large as f32).into()])));
    let e4m3: HostValue = Tensor::from_bytes(DType::F8E4M3FN, &[3], &[0x7e, 0x7f, 0xb8]).expect("3 bytes").into();
    cases.push(case(cast(DType::F8E4M3FN, true), vec![f(&[3], &[1e9, NAN, -1.0])], e4m3.clone()));
    cases.push(case(cast(DType::F32, false), vec![e4m3], f(&[3], &[448.0, NAN, -1.0])));
    let bits = t(DType::I32, &[2], &[f64::from(0x3f80_0000), f64::from(i32::MIN)]);
    cases.push(case(Op::Bitcast { to: DType::F32 }, vec![bits.clone()], f(&[2], &[1.0, -0.0])));
    cases.push(case(Op::Bitcast { to: DType::I32 }, vec![f(&[2], &[1.0, -0.0])], bits));
    cases.push(case(Op::Bitcast { to: DType::U4 }, vec![t(DType::I4, &[1], &[-1.0])], t(DType::U4, &[1], &[15.0])));
}

fn dims(list: &[i64]) -> Vec<Dim> {
    list.iter().map(|&d| Dim::Known(d)).collect()
}

fn movement(cases: &mut Vec<Case>) {
    let x = i(&[2, 3], &[0, 1, 2, 3, 4, 5]);
    cases.push(case(
        Op::Iota { dtype: DType::F32, dims: dims(&[2, 2]), axis: 0 },
        vec![],
        f(&[2, 2], &[0.0, 0.0, 1.0, 1.0]),
    ));
    cases.push(case(Op::DimValue { value: Dim::Known(7) }, vec![], i(&[], &[7])));
    let broadcast = Op::Broadcast { dims: dims(&[2, 2, 3]), axes: vec![0, 2] };
    cases.push(case(broadcast, vec![i(&[2, 1], &[4, 9])], i(&[2, 2, 3], &[4, 4, 4, 4, 4, 4, 9, 9, 9, 9, 9, 9])));
    cases.push(case(Op::Reshape { dims: dims(&[3, 2]) }, vec![x.clone()], i(&[3, 2], &[0, 1, 2, 3, 4, 5])));
    cases.push(case(Op::Transpose { perm: vec![1, 0] }, vec![x.clone()], i(&[3, 2], &[0, 3, 1, 4, 2, 5])));
    let deep = i(&[2, 1, 3], &[0, 1, 2, 3, 4, 5]);
    cases.push(case(Op::Transpose { perm: vec![2, 0, 1] }, vec![deep], i(&[3, 2, 1], &[0, 3, 1, 4, 2, 5])));
    let slice = Op::Slice { starts: dims(&[1, 2]), sizes: dims(&[1, 2]), steps: vec![1, -2] };
    cases.push(case(slice, vec![x.clone()], i(&[1, 2], &[5, 3])));
    let starts = [i(&[], &[1]), i(&[], &[9])];
    let operands = [vec![x.clone()], starts.to_vec()].concat();
    cases.push(case(Op::DynamicSlice { sizes: dims(&[1, 2]) }, operands, i(&[1, 2], &[4, 5])));
    let operands = vec![x.clone(), i(&[1, 2], &[8, 9]), i(&[], &[-4]), i(&[], &[1])];
    cases.push(case(Op::UpdateSlice {}, operands, i(&[2, 3], &[0, 8, 9, 3, 4, 5])));
    let pad = Op::Pad { low: dims(&[0, 1]), high: dims(&[1, 0]) };
    cases.push(case(pad, vec![x.clone(), i(&[], &[7])], i(&[3, 4], &[7, 0, 1, 2, 7, 3, 4, 5, 7, 7, 7, 7])));
    let operands = vec![x.clone(), i(&[2, 1], &[8, 9])];
    cases.push(case(Op::Concat { axis: 1 }, operands, i(&[2, 4], &[0, 1, 2, 8, 3, 4, 5, 9])));
    let strings = Tensor::from_strings(&[2], vec!["a".into(), "b".into()]).expect("2 strings");
    cases.push(case(Op::Concat { axis: 0 }, vec![text(&["a"]), text(&["b"])], strings.into()));
    let operands = vec![x.clone(), i(&[2, 2], &[2, 0, 0, 1])];
    cases.push(case(Op::Gather { axis: 1 }, operands, i(&[2, 2, 2], &[2, 0, 0, 1, 5, 3, 3, 4])));
    for (kind, expected) in [
        (ScatterKind::Assign, [0, 1, 20, 3, 4, 50]),
        (ScatterKind::Add, [0, 1, 32, 3, 4, 95]),
        (ScatterKind::Mul, [0, 1, 400, 3, 4, 10_000]),
        (ScatterKind::Min, [0, 1, 2, 3, 4, 5]),
        (ScatterKind::Max, [0, 1, 20, 3, 4, 50]),
    ] {
        let operands = vec![x.clone(), i(&[2], &[2, 2]), i(&[2, 2], &[10, 20, 40, 50])];
        cases.push(case(Op::Scatter { axis: 1, kind }, operands, i(&[2, 3], &expected)));
    }
    let window =
        Op::Window { axes: vec![1], sizes: vec![2], strides: vec![1], dilations: vec![2], low: vec![1], high: vec![1] };
    let expected = i(&[2, 3, 2], &[-1, 1, 0, 2, 1, -1, -1, 4, 3, 5, 4, -1]);
    cases.push(case(window, vec![x, i(&[], &[-1])], expected));
    let count = Symbol::new("n");
    let mut compact = case(Op::Compact { count: count.clone() }, vec![b(&[4], &[0, 1, 0, 1])], i(&[2], &[1, 3]));
    compact.types = Some(vec![TensorType::new(DType::I64, vec![count.into()]).into()]);
    cases.push(compact);
}

fn reductions(cases: &mut Vec<Case>) {
    let x = f(&[2, 3], &[1.0, -2.0, 3.0, 0.5, 4.0, -4.0]);
    for (kind, expected) in [
        (ReduceKind::Sum, [2.0, 0.5]),
        (ReduceKind::Prod, [-6.0, -8.0]),
        (ReduceKind::Min, [-2.0, -4.0]),
        (ReduceKind::Max, [3.0, 4.0]),
    ] {
        cases.push(case(Op::Reduce { axes: vec![1], kind }, vec![x.clone()], f(&[2], &expected)));
    }
    let all = Op::Reduce { axes: vec![0, 1], kind: ReduceKind::Sum };
    cases.push(case(all, vec![x.clone()], f(&[], &[2.5])));
    for (kind, expected) in [(ReduceKind::ArgMin, [1, 0, 1]), (ReduceKind::ArgMax, [0, 1, 0])] {
        cases.push(case(Op::Reduce { axes: vec![0], kind }, vec![x.clone()], i(&[3], &expected)));
    }
    let cumulate = |kind, exclusive, reverse| Op::Cumulate { axis: 1, kind, exclusive, reverse };
    for (op, expected) in [
        (cumulate(ReduceKind::Sum, false, false), [1.0, -1.0, 2.0, 0.5, 4.5, 0.5]),
        (cumulate(ReduceKind::Sum, true, false), [0.0, 1.0, -1.0, 0.0, 0.5, 4.5]),
        (cumulate(ReduceKind::Prod, false, true), [-6.0, -6.0, 3.0, -8.0, -16.0, -4.0]),
        (cumulate(ReduceKind::Max, true, true), [3.0, 3.0, -INF, 4.0, -4.0, -INF]),
        (cumulate(ReduceKind::Min, false, false), [1.0, -2.0, -2.0, 0.5, 0.5, -4.0]),
    ] {
        cases.push(case(op, vec![x.clone()], f(&[2, 3], &expected)));
    }
    let keys = f(&[5], &[2.0, NAN, 1.0, 2.0, -INF]);
    for (descending, sorted, places) in
        [(false, [-INF, 1.0, 2.0, 2.0, NAN], [4, 2, 0, 3, 1]), (true, [NAN, 2.0, 2.0, 1.0, -INF], [1, 0, 3, 2, 4])]
    {
        let operands = vec![keys.clone(), i(&[5], &[0, 1, 2, 3, 4])];
        let mut sort = case(Op::Sort { axis: 0, descending }, operands, f(&[5], &sorted));
        sort.expected.push(i(&[5], &places));
        cases.push(sort);
    }
}

fn contractions(cases: &mut Vec<Case>) {
    let dot = |batch: &[usize], accumulate| Op::DotGeneral {
        lhs_batch: batch.to_vec(),
        rhs_batch: batch.to_vec(),
        lhs_contract: vec![batch.len() + 1],
        rhs_contract: vec![batch.len()],
        accumulate,
    };
    let (a, w) = (f(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), f(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]));
    cases.push(case(dot(&[], DType::F32), vec![a, w], f(&[2, 2], &[4.0, 5.0, 10.0, 11.0])));
    let (a, w) =
        (t(DType::I8, &[2, 1, 2], &[100.0, 100.0, -1.0, 2.0]), t(DType::U8, &[2, 2, 1], &[200.0, 200.0, 3.0, 4.0]));
    cases.push(case(dot(&[0], DType::I32), vec![a, w], t(DType::I32, &[2, 1, 1], &[40_000.0, 5.0])));
    // ONNX's own `conv_with_strides_and_asymmetric_padding` in one dim: x = 0..7, w = 1 1 1.
    let conv = Op::Conv { strides: vec![2], dilations: vec![1], low: vec![1], high: vec![0], groups: 1 };
    let x = f(&[1, 1, 7], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    cases.push(case(conv, vec![x, f(&[1, 1, 3], &[1.0, 1.0, 1.0])], f(&[1, 1, 3], &[1.0, 6.0, 12.0])));
    let grouped = Op::Conv { strides: vec![1], dilations: vec![2], low: vec![0], high: vec![0], groups: 2 };
    let x = f(&[1, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    cases.push(case(grouped, vec![x, f(&[2, 1, 2], &[1.0, 10.0, 1.0, -1.0])], f(&[1, 2, 1], &[31.0, -2.0])));
    let transpose = Op::ConvTranspose {
        strides: vec![2],
        dilations: vec![1],
        low: vec![1],
        high: vec![0],
        output_padding: vec![1],
        groups: 1,
    };
    // Scattered: 1*[1 2 3] at 0, 2*[1 2 3] at 2 -> 1 2 5 4 6 (0), without the first.
    let operands = vec![f(&[1, 1, 2], &[1.0, 2.0]), f(&[1, 1, 3], &[1.0, 2.0, 3.0])];
    cases.push(case(transpose, operands, f(&[1, 1, 5], &[2.0, 5.0, 4.0, 6.0, 0.0])));
}

fn control(cases: &mut Vec<Case>) {
    let scalar = TensorType::scalar(DType::I64);
    let with = |op: BinaryOp| {
        region(&[scalar.clone(), scalar.clone()], |build, x| vec![build.binary(op, x[0], x[1]).expect("typed")])
    };
    for (condition, expected) in [(1, 5), (0, 6)] {
        let mut branch = case(Op::If {}, vec![b(&[], &[condition]), i(&[], &[2]), i(&[], &[3])], i(&[], &[expected]));
        branch.regions = vec![with(BinaryOp::Add), with(BinaryOp::Mul)];
        cases.push(branch);
    }
    // carried: sum += trip + captured; stops when the sum reaches 6; stacks the sum.
    let body = || {
        let flag = TensorType::scalar(DType::Bool);
        region(&[scalar.clone(), flag, scalar.clone(), scalar.clone()], |build: &mut Builder<'_>, x| {
            let step = build.binary(BinaryOp::Add, x[0], x[3]).expect("typed");
            let sum = build.binary(BinaryOp::Add, x[2], step).expect("typed");
            let six = build.scalar(DType::I64, 6.0).expect("a scalar");
            vec![build.binary(BinaryOp::Lt, sum, six).expect("typed"), sum, sum]
        })
    };
    for (trips, sum, stack) in [(10, 6, vec![1, 3, 6]), (2, 3, vec![1, 3]), (0, 0, vec![])] {
        let operands = vec![i(&[], &[trips]), b(&[], &[1]), i(&[], &[0]), i(&[], &[1])];
        let op = Op::Loop { carried: 1, trips: Dim::symbol("trips") };
        let mut repeat = case(op, operands, i(&[], &[sum]));
        repeat.expected.push(i(&[stack.len()], &stack));
        repeat.types =
            Some(vec![scalar.clone().into(), TensorType::new(DType::I64, vec![Dim::symbol("trips")]).into()]);
        repeat.regions = vec![body()];
        cases.push(repeat);
    }
    let composite = Op::Composite { name: "plus".to_owned(), attributes: BTreeMap::new() };
    for op in [composite, Op::Fusion {}] {
        let mut group = case(op, vec![i(&[], &[2]), i(&[], &[3])], i(&[], &[5]));
        group.regions = vec![with(BinaryOp::Add)];
        cases.push(group);
    }
    let assert = Op::Assert { message: "no".to_owned() };
    cases.push(case(assert, vec![f(&[1], &[2.0]), b(&[2], &[1, 1])], f(&[1], &[2.0])));
    let value = Tensor::i64(&[2], &[3, 4]).expect("2 values");
    cases.push(case(Op::Constant { value: value.clone() }, vec![], value.into()));
}

fn sequences(cases: &mut Vec<Case>) {
    let (x, y, z) = (i(&[1], &[1]), i(&[1], &[2]), i(&[1], &[3]));
    let list = |items: &[&HostValue]| HostValue::Sequence(items.iter().map(|v| (*v).clone()).collect());
    let element = type_of(&x);
    cases.push(case(Op::SequenceConstruct { element }, vec![x.clone(), y.clone()], list(&[&x, &y])));
    cases.push(case(Op::SequenceAt {}, vec![list(&[&x, &y]), i(&[], &[-1])], y.clone()));
    let operands = vec![list(&[&x, &y]), z.clone(), i(&[], &[-1])];
    cases.push(case(Op::SequenceInsert {}, operands, list(&[&x, &z, &y])));
    let operands = vec![list(&[&x, &y]), z.clone(), i(&[], &[2])];
    cases.push(case(Op::SequenceInsert {}, operands, list(&[&x, &y, &z])));
    cases.push(case(Op::SequenceErase {}, vec![list(&[&x, &y, &z]), i(&[], &[1])], list(&[&x, &z])));
    cases.push(case(Op::SequenceLength {}, vec![list(&[&x, &y, &z])], i(&[], &[3])));
}

fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    unary(&mut cases);
    binary(&mut cases);
    conversions(&mut cases);
    movement(&mut cases);
    reductions(&mut cases);
    contractions(&mut cases);
    control(&mut cases);
    sequences(&mut cases);
    cases
}

#[test]
fn every_case_gives_its_value() {
    for (number, Case { op, operands, regions, types, expected }) in all().into_iter().enumerate() {
        let types = types.unwrap_or_else(|| expected.iter().map(type_of).collect());
        let found = eval_op(&op, &origin(), &operands, &types, &regions, &Symbols::new(), Options::default());
        let found = found.unwrap_or_else(|e| panic!("case {number}, {op:?}: {e}"));
        assert_same(&found, &expected, &format!("case {number}, {op:?}"));
    }
}

/// Ops that need a module or have no meaning here are tested in `semantics`.
#[test]
fn every_op_of_the_table_has_a_case() {
    const ELSEWHERE: [&str; 6] = ["input", "param", "call", "vjp", "absent", "onnx"];
    let tested: BTreeSet<&str> = all().iter().map(|c| c.op.name()).chain(ELSEWHERE).collect();
    let table = Op::DOCS.iter().map(|(name, ..)| *name);
    let words = UnaryOp::ALL.iter().map(|u| u.name()).chain(BinaryOp::ALL.iter().map(|b| b.name()));
    let missing: Vec<&str> = table.chain(words).filter(|name| !tested.contains(name)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
