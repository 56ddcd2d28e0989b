//! What a configuration chooses among, by the authors' words.

use std::fmt;
use std::str::FromStr;

use super::ModelError;
use crate::op::attr::word_enum;

word_enum! {
    /// An activation function.
    Activation {
        /// x sigmoid(x)
        Silu "silu",
        /// max(x, 0)
        Relu "relu",
        /// x (1 + erf(x / sqrt 2)) / 2
        Gelu "gelu",
        /// 1.0507 times (x where positive, else 1.6733 (e^x - 1))
        Selu "selu",
        /// x where positive, else e^x - 1
        Elu "elu",
        /// x where positive, else x / 100
        LeakyRelu "leaky_relu",
        /// ln(1 + e^x)
        Softplus "softplus",
        /// 1 / (1 + e^-x)
        Sigmoid "sigmoid",
        /// Hyperbolic tangent
        Tanh "tanh",
    }
}

word_enum! {
    /// How the two activations of a basis, u and v, combine.
    BasisFunction {
        /// (u v)^2
        Quad1 "quad1",
        /// u v + u^2 + v^2
        Quad2 "quad2",
        /// u + v
        Sum "sum",
        /// u v
        Prod "prod",
        /// u + v + u v
        SumProd "sum_prod",
        /// (u + v) (u^2 + v^2)
        Cubic1 "cubic1",
        /// (u v)^3
        Cubic2 "cubic2",
    }
}

word_enum! {
    /// How a layer's bases become one number an input.
    Method {
        /// Their sum, weighted by a softmax over inputs of a linear map of them
        GlobalAttn "global_attn",
        /// A linear map of them
        Multistep "multistep",
        /// Their sum, weighted by a softmax over bases of a depthwise convolution along the inputs
        SpatialAttn "spatial_attn",
        /// Attention among windows of two bases, then a linear map
        LocalAttn "local_attn",
        /// Attention among inputs, a head a basis, summed; its time and memory grow with the square of the inputs
        MultiheadAttn "multihead_attn",
    }
}

word_enum! {
    /// How the outputs of several methods combine.
    Combination {
        /// Sum
        Sum "sum",
        /// Product
        Product "product",
        /// Sum + product
        SumProduct "sum_product",
        /// Sum + product + sum of squares
        Quadratic "quadratic",
    }
}

word_enum! {
    /// What a layer normalises before its activation.
    Norm {
        /// Each sample, over the layer's inputs
        Layer "layer",
        /// Each input, over the batch; running statistics at inference
        Batch "batch",
        /// Nothing
        None "none",
    }
}

macro_rules! parsed {
    ($($name:ident $what:literal;)*) => {$(
        impl FromStr for $name {
            type Err = ModelError;

            fn from_str(word: &str) -> Result<Self, ModelError> {
                let known = || $name::ALL.iter().map(|v| v.name()).collect::<Vec<_>>().join(", ");
                $name::from_name(word).ok_or_else(|| ModelError::Word { what: $what, word: word.to_owned(), known: known() })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    )*};
}

parsed! {
    Activation "activation";
    BasisFunction "function type";
    Method "method";
    Combination "combination";
    Norm "norm";
}
