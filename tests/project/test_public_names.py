"""Names that users may rely on: once public, a name stays."""
from __future__ import annotations

import pickle
from importlib import import_module
from types import FunctionType

import pytest

from minigrad import Tensor
from minigrad.core.op import Op, Primitive

NAMES = {
    "minigrad": """
        Device Generator Size Tensor abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr alias_copy all
        allclose amax amin aminmax amp any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin
        argsort argwhere as_strided as_strided_copy as_strided_scatter as_tensor asarray asin asinh atan atan2 atanh
        atleast_1d atleast_2d atleast_3d autocast autograd baddbmm batch_norm batch_norm_eval bernoulli
        binary_cross_entropy binary_cross_entropy_with_logits bincount bitwise_and bitwise_left_shift bitwise_not
        bitwise_or bitwise_right_shift bitwise_xor block_diag bmm bool broadcast_shapes broadcast_tensors broadcast_to
        bucketize capture cartesian_prod cat cdist ceil celu chain_matmul cholesky cholesky_inverse cholesky_solve chunk
        clamp clamp_max clamp_min clip clone column_stack combinations concat concatenate conj conj_physical
        constant_pad_nd contiguous copysign corrcoef cos cosh count_nonzero cov cross cross_entropy cuda cummax cummin
        cumprod cumsum cumulative_trapezoid data default_generator deg2rad det detach_copy device diag diag_embed
        diagflat diagonal diagonal_copy diagonal_scatter diff digamma dist div divide dot double dropout dsplit dstack
        dtype e einsum elu empty empty_cache empty_like enable_grad eq equal erf erfc erfinv exp exp2 expand expand_as
        expand_copy expm1 eye feature_dropout fill finfo fix flatten flip fliplr flipud float float16 float32 float64
        float_power floor floor_divide fmax fmin fmod frac frexp from_dlpack from_numpy full full_like func gather gcd
        ge gelu geqrf ger get_autocast_dtype get_default_dtype get_num_threads get_rng_state glu gradient greater
        greater_equal group_norm gt half hardsigmoid hardswish hardtanh heaviside histc histogram histogramdd hsplit
        hstack huber_loss hypot i0 igamma igammac iinfo index_add index_copy index_fill index_put index_reduce
        index_select inf inference_mode initial_seed inner instance_norm int int16 int32 int64 int8 inverse io
        is_autocast_enabled is_complex is_floating_point is_grad_enabled is_nonzero is_signed is_tensor isclose isfinite
        isin isinf isnan isneginf isposinf isreal kl_div kron kthvalue l1_loss layer_norm lcm ldexp le leaky_relu lerp
        less less_equal lgamma linalg linear linspace load log log10 log1p log2 log_softmax logaddexp logaddexp2
        logcumsumexp logdet logical_and logical_not logical_or logical_xor logit logsigmoid logspace logsumexp long lt
        lu lu_solve lu_unpack manual_seed masked masked_fill masked_scatter masked_select matmul matrix_exp matrix_power
        max maximum mean median meshgrid min minimum mish mm mode moveaxis movedim mse_loss msort mul multinomial
        multiply mv mvlgamma nan nan_to_num nanmean nanmedian nanquantile nansum narrow narrow_copy ne neg negative
        newaxis nextafter nll_loss nn no_grad nonzero nonzero_static norm normal not_equal numel one_hot ones ones_like
        op optim orgqr ormqr outer pad pca_lowrank pdist permute permute_copy pi pinverse polygamma positive pow prelu
        prod promote_types put qr quantile rad2deg rand rand_like randint randint_like randn randn_like randperm ravel
        real reciprocal relu relu6 remainder renorm repeat repeat_interleave reshape reshape_as resolve_conj resolve_neg
        result_type rms_norm roll rot90 round row_stack rsqrt rsub save scalar_tensor scaled_dot_product_attention
        scatter scatter_add scatter_reduce searchsorted seed segment_reduce select select_copy select_scatter selu
        set_default_dtype set_fused set_grad_enabled set_num_threads set_printoptions set_rng_state sgn short
        show_config sigmoid sign signal signbit silu simd_level sin sinc sinh slice_scatter slogdet smooth_l1_loss
        softmax softplus softsign sort special split split_copy split_with_sizes split_with_sizes_copy sqrt square
        squeeze squeeze_copy stack std std_mean study sub subtract sum sum_to_size svd svd_lowrank swapaxes swapdims t
        t_copy take take_along_dim tan tanh tensor tensor_split tensordot testing threshold tile topk trace transpose
        transpose_copy trapezoid trapz triangular_solve tril tril_indices triu triu_indices true_divide trunc uint16
        uint32 uint64 uint8 unbind unbind_copy unflatten unfold unfold_copy unique unique_consecutive unravel_index
        unsafe_chunk unsafe_split unsqueeze unsqueeze_copy utils var var_mean vdot view view_as view_copy vsplit vstack
        where xlogy zeros zeros_like
    """,
    "minigrad.nn": """
        AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveLogSoftmaxWithLoss AdaptiveMaxPool1d
        AdaptiveMaxPool2d AdaptiveMaxPool3d AlphaDropout AvgPool1d AvgPool2d AvgPool3d BCELoss BCEWithLogitsLoss
        BatchNorm1d BatchNorm2d BatchNorm3d Bilinear Buffer CELU CTCLoss ChannelShuffle CircularPad1d CircularPad2d
        CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d
        ConvTranspose3d CosineEmbeddingLoss CosineSimilarity CrossEntropyLoss DataParallel Dropout Dropout1d Dropout2d
        Dropout3d ELU Embedding EmbeddingBag FeatureAlphaDropout Flatten Fold FractionalMaxPool2d FractionalMaxPool3d
        GELU GLU GRU GRUCell GaussianNLLLoss GroupNorm Hardshrink Hardsigmoid Hardswish Hardtanh HingeEmbeddingLoss
        HuberLoss Identity InstanceNorm1d InstanceNorm2d InstanceNorm3d KLDivLoss L1Loss LPPool1d LPPool2d LPPool3d LSTM
        LSTMCell LayerNorm LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyConv1d LazyConv2d LazyConv3d
        LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d LazyInstanceNorm1d LazyInstanceNorm2d
        LazyInstanceNorm3d LazyLinear LeakyReLU Linear LinearCrossEntropyLoss LocalResponseNorm LogSigmoid LogSoftmax
        MSELoss MarginRankingLoss MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d Mish Module
        ModuleDict ModuleList MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss MultiheadAttention NLLLoss
        PReLU PairwiseDistance Parameter ParameterDict ParameterList PixelShuffle PixelUnshuffle PoissonNLLLoss RMSNorm
        RNN RNNBase RNNCell RNNCellBase RReLU ReLU ReLU6 Recurrent ReflectionPad1d ReflectionPad2d ReflectionPad3d
        ReplicationPad1d ReplicationPad2d ReplicationPad3d SELU Sequential SiLU Sigmoid SmoothL1Loss SoftMarginLoss
        Softmax Softmax2d Softmin Softplus Softshrink Softsign SyncBatchNorm Tanh Tanhshrink Threshold Transformer
        TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer TripletMarginLoss
        TripletMarginWithDistanceLoss Unflatten Unfold UninitializedBuffer UninitializedParameter Upsample
        UpsamplingBilinear2d UpsamplingNearest2d ZeroPad1d ZeroPad2d ZeroPad3d functional init parallel summary utils
    """,
    "minigrad.nn.functional": """
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool1d_with_indices
        adaptive_max_pool2d adaptive_max_pool2d_with_indices adaptive_max_pool3d adaptive_max_pool3d_with_indices
        affine_grid alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm bilinear binary_cross_entropy
        binary_cross_entropy_with_logits celu channel_shuffle conv1d conv2d conv3d conv_transpose1d conv_transpose2d
        conv_transpose3d cosine_embedding_loss cosine_similarity cross_entropy ctc_loss dropout dropout1d dropout2d
        dropout3d elu embedding embedding_bag feature_alpha_dropout fold fractional_max_pool2d
        fractional_max_pool2d_with_indices fractional_max_pool3d fractional_max_pool3d_with_indices gaussian_nll_loss
        gelu glu grid_sample group_norm gumbel_softmax hardshrink hardsigmoid hardswish hardtanh hinge_embedding_loss
        huber_loss instance_norm interpolate kl_div l1_loss layer_norm leaky_relu linear linear_cross_entropy
        local_response_norm log_softmax logsigmoid lp_pool1d lp_pool2d lp_pool3d margin_ranking_loss max_pool1d
        max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool1d
        max_unpool2d max_unpool3d mish mse_loss multi_head_attention_forward multi_margin_loss multilabel_margin_loss
        multilabel_soft_margin_loss nll_loss normalize one_hot pad pairwise_distance pixel_shuffle pixel_unshuffle
        poisson_nll_loss prelu relu relu6 rms_norm rrelu scaled_dot_product_attention selu sigmoid silu smooth_l1_loss
        soft_margin_loss softmax softmin softplus softshrink softsign tanh tanhshrink threshold triplet_margin_loss
        triplet_margin_with_distance_loss unfold upsample upsample_bilinear upsample_nearest
    """,
    "minigrad.nn.utils": """
        clip_grad_norm_ clip_grad_value_ clip_grads_with_norm_ fuse_conv_bn_eval fuse_conv_bn_weights
        fuse_linear_bn_eval fuse_linear_bn_weights fusion get_total_norm parameters_to_vector parametrizations
        parametrize prune remove_spectral_norm remove_weight_norm rnn spectral_norm vector_to_parameters weight_norm
    """,
    "minigrad.nn.utils.rnn": """
        PackedSequence invert_permutation pack_padded_sequence pack_sequence pad_packed_sequence pad_sequence
        unpack_sequence unpad_sequence
    """,
    "minigrad.nn.init": """
        calculate_gain constant_ dirac_ eye_ kaiming_normal_ kaiming_uniform_ normal_ ones_ orthogonal_ sparse_
        trunc_normal_ uniform_ xavier_normal_ xavier_uniform_ zeros_
    """,
    "minigrad.optim": """
        ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS Muon NAdam Optimizer RAdam RMSprop Rprop SGD SparseAdam
        lr_scheduler swa_utils
    """,
    "minigrad.optim.lr_scheduler": """
        ChainedScheduler ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR LRScheduler
        LambdaLR LinearLR MultiStepLR MultiplicativeLR OneCycleLR PolynomialLR ReduceLROnPlateau SWALR SequentialLR
        StepLR
    """,
    "minigrad.optim.swa_utils": """
        AveragedModel SWALR get_ema_avg_fn get_ema_multi_avg_fn get_swa_avg_fn get_swa_multi_avg_fn update_bn
    """,
    "minigrad.distributions": """
        AbsTransform AffineTransform Bernoulli Beta Binomial CatTransform Categorical Cauchy Chi2
        ComposeTransform ContinuousBernoulli CorrCholeskyTransform CumulativeDistributionTransform
        Dirichlet Distribution ExpTransform Exponential FisherSnedecor Gamma GeneralizedPareto
        Geometric Gumbel HalfCauchy HalfNormal Independent IndependentTransform InverseGamma
        Kumaraswamy LKJCholesky Laplace LogNormal LogisticNormal LowRankMultivariateNormal
        LowerCholeskyTransform MixtureSameFamily Multinomial MultivariateNormal NegativeBinomial
        Normal OneHotCategorical OneHotCategoricalStraightThrough Pareto Poisson
        PositiveDefiniteTransform PowerTransform RelaxedBernoulli RelaxedOneHotCategorical
        ReshapeTransform SigmoidTransform SoftmaxTransform SoftplusTransform StackTransform
        StickBreakingTransform StudentT TanhTransform Transform TransformedDistribution Uniform
        VonMises Weibull Wishart biject_to constraints identity_transform kl_divergence register_kl
        transform_to transforms
    """,
    "minigrad.nn.utils.parametrize": """
        ParametrizationList cached is_parametrized register_parametrization remove_parametrizations
        transfer_parametrizations_and_params type_before_parametrizations
    """,
    "minigrad.nn.utils.parametrizations": """
        orthogonal spectral_norm weight_norm
    """,
    "minigrad.data": """
        BatchSampler CharTokenizer ConcatDataset DataLoader Dataset RandomSampler Sampler SequentialSampler
        StackDataset Subset SubsetRandomSampler TensorDataset WeightedRandomSampler cifar10 default_collate default_convert digits download
        fashion_mnist mnist python_docs_text random_split read_cifar10 read_idx unpack
    """,
    "minigrad.io": """
        load save
    """,
    "minigrad.autograd": """
        Function GradcheckError Variable backward detect_anomaly enable_grad functional grad gradcheck gradgradcheck
        graph inference_mode is_anomaly_check_nan_enabled is_anomaly_enabled is_grad_enabled no_grad profiler
        set_detect_anomaly set_grad_enabled
    """,
    "minigrad.autograd.profiler": """
        EventList FunctionEventAvg profile record_function
    """,
    "minigrad.autograd.graph": """
        GradientEdge Node disable_saved_tensors_hooks get_gradient_edge register_multi_grad_hook save_on_cpu
        saved_tensors_hooks
    """,
    "minigrad.autograd.functional": """
        hessian hvp jacobian jvp vhp vjp
    """,
    "minigrad.utils": """
        checkpoint data
    """,
    "minigrad.utils.data": """
        BatchSampler CharTokenizer ConcatDataset DataLoader Dataset RandomSampler Sampler SequentialSampler
        StackDataset Subset SubsetRandomSampler TensorDataset WeightedRandomSampler cifar10 default_collate default_convert digits download
        fashion_mnist mnist python_docs_text random_split read_cifar10 read_idx unpack
    """,
    "minigrad.utils.checkpoint": """
        checkpoint checkpoint_sequential noop_context_fn
    """,
    "minigrad.study": """
        Graph Record backward_order explain explore gradient_flow graph launches normalization profile record_function roof
        saved trace
    """,
    "minigrad.testing": """
        CHECKS Checked Make arbitrate check_errors check_fused check_gradients check_half check_layouts check_memory check_op
        check_oracle check_specials check_threads derivative directional_error enlarged evaluate relaid samples_of
    """,
    "minigrad.bench": """
        copy_bandwidth find_op fma_peak import_time interleaved main memory_growth table time_op workloads
    """,
    "minigrad.core.op": """
        Op Primitive op registry same_dtypes
    """,
    "minigrad.core.op.Op": """
        check errors fused kernel reference samples
    """,
    "minigrad.amp": """
        GradScaler autocast get_autocast_dtype is_autocast_available is_autocast_enabled
    """,
    "minigrad.cuda": """
        current_device device_count empty_cache get_device_capability get_device_name is_available is_bf16_supported manual_seed
        manual_seed_all mem_get_info memory_allocated memory_reserved set_device synchronize unavailable
    """,
    "minigrad.linalg": """
        LinAlgError cholesky cholesky_ex cond cross det diagonal eigh eigvalsh householder_product inv inv_ex lstsq lu
        lu_factor lu_factor_ex lu_solve matmul matrix_exp matrix_norm matrix_power matrix_rank multi_dot norm pinv qr
        slogdet solve solve_ex solve_triangular svd svdvals tensorinv tensorsolve vander vecdot vector_norm
    """,
    "minigrad.func": """
        functional_call grad grad_and_value hessian jacfwd jacrev jvp stack_module_state vjp vmap
    """,
    "minigrad.masked": """
        amax amin argmax argmin cumprod cumsum log_softmax logaddexp logsumexp mean median norm normalize prod softmax
        softmin std sum var
    """,
    "minigrad.special": """
        airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 chebyshev_polynomial_t chebyshev_polynomial_u
        chebyshev_polynomial_v chebyshev_polynomial_w digamma entr erf erfc erfcx erfinv exp2 expit expm1 gammainc
        gammaincc gammaln hermite_polynomial_h hermite_polynomial_he i0 i0e i1 i1e laguerre_polynomial_l
        legendre_polynomial_p log1p log_ndtr log_softmax logit logsumexp modified_bessel_i0 modified_bessel_i1
        modified_bessel_k0 modified_bessel_k1 multigammaln ndtr ndtri polygamma psi round scaled_modified_bessel_k0
        scaled_modified_bessel_k1 shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u
        shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w sinc softmax spherical_bessel_j0 xlog1py xlogy
        zeta
    """,
    "minigrad.signal": """
        windows
    """,
    "minigrad.signal.windows": """
        bartlett blackman cosine exponential gaussian general_cosine general_hamming hamming hann kaiser nuttall
    """,
    "Tensor": """
        H T __abs__ __add__ __and__ __array__ __array_interface__ __array_priority__ __bool__ __complex__
        __cuda_array_interface__ __deepcopy__ __dlpack__ __dlpack_device__ __eq__ __float__ __floordiv__ __format__
        __ge__ __getitem__ __gt__ __hash__ __iadd__ __iand__ __ifloordiv__ __ilshift__ __imod__ __imul__ __index__
        __int__ __invert__ __ior__ __ipow__ __irshift__ __isub__ __iter__ __itruediv__ __ixor__ __le__ __len__
        __lshift__ __lt__ __matmul__ __mod__ __mul__ __ne__ __neg__ __or__ __pos__ __pow__ __radd__ __rand__ __repr__
        __rfloordiv__ __rlshift__ __rmatmul__ __rmod__ __rmul__ __ror__ __rpow__ __rrshift__ __rshift__ __rsub__
        __rtruediv__ __rxor__ __setitem__ __sub__ __truediv__ __xor__ _repr_html_ _version abs abs_ absolute absolute_
        acos acos_ acosh acosh_ add add_ addbmm addbmm_ addcdiv addcdiv_ addcmul addcmul_ addmm addmm_ addmv addmv_ addr
        alias_copy all allclose amax amin aminmax any arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_
        arctan arctan2 arctan2_ arctan_ arctanh arctanh_ argmax argmin argsort argwhere as_strided as_strided_
        as_strided_copy as_strided_scatter asin asin_ asinh asinh_ atan atan2 atan2_ atan_ atanh atanh_ backward baddbmm baddbmm_
        batch_norm batch_norm_eval bernoulli bernoulli_ bfloat16 binary_cross_entropy binary_cross_entropy_with_logits
        bincount bitwise_and bitwise_and_ bitwise_left_shift bitwise_left_shift_ bitwise_not bitwise_not_ bitwise_or
        bitwise_or_ bitwise_right_shift bitwise_right_shift_ bitwise_xor bitwise_xor_ bmm bool broadcast_to byte cauchy_
        cdist ceil ceil_ celu celu_ char cholesky cholesky_inverse cholesky_solve chunk clamp clamp_ clamp_max
        clamp_max_ clamp_min clamp_min_ clip clip_ clone combinations conj conj_physical constant_pad_nd contiguous
        copy_ copysign copysign_ corrcoef cos cos_ cosh cosh_ count_nonzero cov cpu cross cross_entropy cuda cummax
        cummin cumprod cumprod_ cumsum cumsum_ cumulative_trapezoid data data_ptr deg2rad deg2rad_ det detach detach_
        detach_copy device diag diag_embed diagflat diagonal diagonal_copy diagonal_scatter diff digamma digamma_ dim
        dist div div_ divide divide_ dot double dropout dsplit dtype element_size elu elu_ eq eq_ equal erf erf_ erfc
        erfc_ erfinv erfinv_ exp exp2 exp2_ exp_ expand expand_as expand_copy expm1 expm1_ exponential_ feature_dropout
        fill fill_ fix fix_ flatten flip fliplr flipud float floor floor_ floor_divide floor_divide_ fmax fmin fmod
        fmod_ frac frac_ frexp gather gcd gcd_ ge ge_ gelu geometric_ geqrf ger glu grad grad_fn gradient greater
        greater_ greater_equal greater_equal_ group_norm gt gt_ half hardsigmoid hardswish hardtanh hardtanh_ heaviside
        heaviside_ histc histogram histogramdd hsplit huber_loss hypot hypot_ i0 i0_ igamma igamma_ igammac igammac_
        index_add index_add_ index_copy index_copy_ index_fill index_fill_ index_put index_put_ index_reduce
        index_reduce_ index_select inner instance_norm int inverse is_complex is_contiguous is_cuda is_floating_point
        is_leaf is_nonzero is_signed isclose isfinite isinf isnan isneginf isposinf isreal item itemsize kl_div kron
        kthvalue l1_loss layer_norm lcm lcm_ ldexp ldexp_ le le_ leaky_relu leaky_relu_ lerp lerp_ less less_ less_equal
        less_equal_ lgamma lgamma_ linear log log10 log10_ log1p log1p_ log2 log2_ log_ log_normal_ log_softmax
        logaddexp logaddexp2 logcumsumexp logdet logical_and logical_and_ logical_not logical_not_ logical_or
        logical_or_ logical_xor logical_xor_ logit logit_ logsigmoid logsumexp long lt lt_ lu lu_solve lu_unpack mH mT
        masked_fill masked_fill_ masked_scatter masked_scatter_ masked_select matmul matrix_exp matrix_power max maximum
        mean median min minimum mish mm mode moveaxis movedim mse_loss msort mul mul_ multinomial multiply multiply_ mv
        mvlgamma mvlgamma_ nan_to_num nan_to_num_ nanmean nanmedian nanquantile nansum narrow narrow_copy nbytes ndim
        ndimension ne ne_ neg neg_ negative negative_ nelement new new_empty new_full new_ones new_tensor new_zeros
        nextafter nextafter_ nll_loss nonzero nonzero_static norm normal_ not_equal not_equal_ numel numpy one_hot orgqr
        ormqr outer output_nr pad pca_lowrank pdist permute permute_copy pinverse polygamma positive pow pow_ prelu prod
        put put_ qr quantile rad2deg rad2deg_ rand_like randint_like randn_like random_ ravel real reciprocal
        reciprocal_ register_hook register_post_accumulate_grad_hook relu relu6 relu6_ relu_ remainder remainder_ renorm
        renorm_ repeat repeat_interleave requires_grad requires_grad_ reshape reshape_as resize_ resize_as_ resolve_conj
        resolve_neg retain_grad rms_norm roll rot90 round round_ rsqrt rsqrt_ rsub scaled_dot_product_attention scatter
        scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ searchsorted segment_reduce select select_copy
        select_scatter selu selu_ set_ sgn sgn_ shape short sigmoid sigmoid_ sign sign_ signbit silu silu_ sin sin_ sinc
        sinc_ sinh sinh_ size slice_scatter slogdet smooth_l1_loss softmax softplus softsign sort split split_copy
        split_with_sizes split_with_sizes_copy sqrt sqrt_ square square_ squeeze squeeze_ squeeze_copy std std_mean
        stride sub sub_ subtract subtract_ sum sum_to_size svd svd_lowrank swapaxes swapaxes_ swapdims swapdims_ t t_
        t_copy take take_along_dim tan tan_ tanh tanh_ tensor_split tensordot threshold threshold_ tile to tolist topk
        trace transpose transpose_ transpose_copy trapezoid trapz triangular_solve tril tril_ triu triu_ true_divide
        true_divide_ trunc trunc_ type type_as unbind unbind_copy unflatten unfold unfold_copy uniform_ unique
        unique_consecutive unravel_index unsafe_chunk unsafe_split unsqueeze unsqueeze_ unsqueeze_copy var var_mean vdot
        view view_as view_copy vsplit where zero_
    """,
}


@pytest.mark.parametrize("module", NAMES)
def test_every_public_name_is_there(module):
    where = {"Tensor": Tensor, "minigrad.core.op.Op": Op}.get(module) or import_module(module)
    missing = [name for name in NAMES[module].split() if not hasattr(where, name)]
    assert not missing, f"{module} has lost {missing}"


@pytest.mark.parametrize("module", ["minigrad", "minigrad.nn.functional", "minigrad.special", "minigrad.linalg", "minigrad.masked"])
def test_functions_are_pickled_by_their_names(module):
    """So that a model which holds one (`self.activation = F.gelu`) can be pickled."""
    for name in dir(import_module(module)):
        function = getattr(import_module(module), name)
        if isinstance(function, (FunctionType, Op, Primitive)) and not name.startswith("_"):
            assert pickle.loads(pickle.dumps(function)) is function, name
