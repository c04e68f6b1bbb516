// One plain struct a kernel family: the whole vocabulary between host and kernels. Shapes are in the comments.
//
// Pointers are device memory unless a comment says pinned. "act" is the activation type (the model's dtype); f32 is
// float. Counts that change from step to step are read from device memory, so that a captured step can be replayed.
#pragma once

#include "kernels/batch.h"
#include "kernels/cluster_params.h"
#include "kernels/dtype.h"
#include "kernels/kv_layout.h"
#include "kernels/model_params.h"
#include "kernels/retrieve_params.h"
#include "kernels/sample_params.h"
#include "kernels/select_params.h"
