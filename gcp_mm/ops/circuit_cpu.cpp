// circuit.py's pooling, float32, on CPUs: each sample by one thread, from the features to the
// packed triangle, on matrices that stay in the cache. For N < D the 'gram' kind of circuit, else
// 'covariance'.
//
// Every product goes tile by tile from the registers into what is wanted of it: a linear
// combination, a dot product, the packed triangle. Of symmetric results only the tiles that reach
// the diagonal or lie above it are computed. The sweeps are
//
//   Q_{j+1} = a_j Q_j^2 + sum_{i <= j} b_{j,i} Q_i
//   Qbar_j  = a_j (Qbar_{j+1} Q_j + Q_j Qbar_{j+1}) + sum_{i >= j} b_{i,j} Qbar_{i+1}
//
// Matrices are row-major, their rows padded to a multiple of 8 floats. Padding columns hold zeros
// and only ever reach padding columns: the inner dimension of a product is not padded.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <tuple>
#include <utility>
#include <vector>

namespace {

constexpr int64_t kLanes = 8;
// Written out, not left to a BLAS: MKL's products of this size are no faster, cannot compute half
// of a result, and its name is not exported by every build of torch. aligned(4): at any float.
typedef float Vec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

Vec& vec(float* p) { return *reinterpret_cast<Vec*>(p); }
const Vec& vec(const float* p) { return *reinterpret_cast<const Vec*>(p); }
float sum(Vec v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }
int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

struct Matrix {
  float* data;
  int64_t stride;
  float* at(int64_t i, int64_t j) const { return data + i * stride + j; }
};

// ---- products

struct Term {
  Matrix a, b;
};

// R rows and V vectors of columns of sum A B; `b`: these columns of all B, packed.
template <int R, int V>
void tile(const Term* terms, int64_t count, int64_t inner, int64_t row, const float* b,
          float* out) {
  Vec acc[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) acc[r][v] = Vec{};
  }
  const Term* const terms_end = terms + count;
  do {  // not `for`: a path round the loop would spill acc
    const float* a = terms->a.at(row, 0);
    const float* const a_end = a + inner;
    const int64_t stride = terms->a.stride;
    do {
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) acc[r][v] += a[r * stride] * vec(b + v * kLanes);
      }
      b += V * kLanes;
    } while (++a != a_end);
  } while (++terms != terms_end);
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) vec(out + (r * V + v) * kLanes) = acc[r][v];
  }
}

template <int V, size_t... R>
constexpr auto tiles(std::index_sequence<R...>) {
  return std::array{tile<R + 1, V>...};
}

// Columns [j, j + 8 V) of a product.
template <int V, class Use>
void panel(const Term* terms, int64_t count, int64_t rows, int64_t inner, int64_t j, float* packed,
           Use use) {
  constexpr int kVecs = 12;  // accumulators that leave registers for the operands
  static constexpr auto kTiles = tiles<V>(std::make_index_sequence<kVecs / V>());
  float out[kVecs * kLanes];
  float* to = packed;
  for (const Term* term = terms; term != terms + count; ++term) {
    const float* from = term->b.at(0, j);
    for (int64_t k = 0; k < inner; ++k, from += term->b.stride, to += V * kLanes) {
      for (int v = 0; v < V; ++v) vec(to + v * kLanes) = vec(from + v * kLanes);
    }
  }
  // Of nearly equal height: a tile of one row would wait for its own sums.
  const int64_t steps = (rows * V + kVecs - 1) / kVecs;
  for (int64_t step = 0, i = 0; step < steps; ++step) {
    const int64_t end = (step + 1) * rows / steps;
    kTiles[end - i - 1](terms, count, inner, i, packed, out);
    for (const float* from = out; i < end; ++i) {
      for (int v = 0; v < V; ++v, from += kLanes) use(i, j + v * kLanes, vec(from));
    }
  }
}

// use(i, j, 8 elements of row i from column j) for all of sum A B, (rows x columns), or for what
// the upper triangle needs of it. `use` is copied, so that what it holds by value can stay in
// registers. `packed`: room for 16 columns of all B.
template <class Use>
void product(std::initializer_list<Term> terms, int64_t rows, int64_t inner, int64_t columns,
             bool upper, float* packed, const Use& use) {
  for (int64_t j = 0; j < columns; j += 2 * kLanes) {
    const bool wide = j + kLanes < columns;
    const int64_t height = upper ? std::min(rows, j + (1 + wide) * kLanes) : rows;
    const auto run = wide ? panel<2, Use> : panel<1, Use>;
    run(terms.begin(), terms.size(), height, inner, j, packed, use);
  }
}

// ---- transposition

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int Indices __attribute__((vector_size(4 * kLanes)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Indices{__VA_ARGS__})
#endif

// The 8 x 8 block at (i, j) of `from`, transposed, to (j, i) of `to`; `rows` of it.
void transpose_block(Matrix from, Matrix to, int64_t i, int64_t j, int64_t rows) {
  Vec x[8], y[8];
  for (int r = 0; r < 8; ++r) x[r] = vec(from.at(i + r, j));
  for (int h = 0; h < 8; h += 4) {
    for (int r = 0; r < 2; ++r) {
      y[h + 2 * r] = SHUFFLE(x[h + r], x[h + r + 2], 0, 8, 1, 9, 4, 12, 5, 13);
      y[h + 2 * r + 1] = SHUFFLE(x[h + r], x[h + r + 2], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int r = 0; r < 2; ++r) {
      x[h + 2 * r] = SHUFFLE(y[h + r], y[h + r + 2], 0, 8, 1, 9, 4, 12, 5, 13);
      x[h + 2 * r + 1] = SHUFFLE(y[h + r], y[h + r + 2], 2, 10, 3, 11, 6, 14, 7, 15);
    }
  }
  for (int r = 0; r < 4; ++r) {
    y[r] = SHUFFLE(x[r], x[r + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    y[r + 4] = SHUFFLE(x[r], x[r + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  for (int r = 0; r < rows; ++r) vec(to.at(j + r, i)) = y[r];
}

// Both sides have whole blocks of rows.
void transpose(Matrix from, Matrix to, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i += kLanes) {
    for (int64_t j = 0; j < columns; j += kLanes) transpose_block(from, to, i, j, kLanes);
  }
}

// Fill in the blocks below the diagonal.
void mirror(Matrix m, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    for (int64_t j = i + kLanes; j < n; j += kLanes) {
      transpose_block(m, m, i, j, std::min(kLanes, n - j));
    }
  }
}

constexpr int64_t kPiece = 64;  // positions summed at a time

// ---- circuits and features

struct Circuit {
  std::vector<double> a;
  std::vector<std::vector<double>> b;
  float c;

  // flat_b: the rows of b, one after the other.
  Circuit(at::ArrayRef<double> a, at::ArrayRef<double> flat_b, double c) : a(a.vec()), c(c) {
    auto from = flat_b.begin();
    for (size_t j = 1; j <= a.size(); from += j++) b.emplace_back(from, from + j);
  }
};

// A linear combination of matrices: weights, and where each lies from a common one.
struct Combination {
  std::vector<std::pair<float, int64_t>> terms;
  void add(double weight, int64_t distance) {
    if (weight != 0) terms.emplace_back(weight, distance);
  }
  Vec added_to(Vec v, const float* from) const {
    for (const auto& [weight, distance] : terms) v += weight * vec(from + distance);
    return v;
  }
};

// Bump allocation: of one sample's saved tensor, or of a thread's memory.
struct Space {
  float* next;
  Matrix take(int64_t rows, int64_t stride) {
    return {std::exchange(next, next + rows * stride), stride};
  }
};

// Center the rows of `from` and scale them to unit trace. Returns the trace, 0 if it vanishes.
float normalize(const float* from, Matrix x, int64_t d, int64_t n) {
  const int64_t end = padded(n);
  Vec squares = {};
  for (int64_t i = 0; i < d; ++i, from += n) {
    float* row = x.at(i, 0);
    std::memcpy(row, from, n * sizeof(float));
    // From the first element on: what is constant becomes exactly zero, and a large mean costs
    // no digits.
    const float first = row[0];
    std::fill(row + n, row + end, first);
    Vec total = {};
    for (int64_t j = 0; j < end; j += kLanes) total += vec(row + j) -= first;
    const float mean = sum(total) / n;
    for (int64_t j = 0; j < end; j += kLanes) vec(row + j) -= mean;
    std::fill(row + n, row + end, 0.f);
    Vec square = {};
    for (int64_t j = 0; j < end; j += kLanes) square += vec(row + j) * vec(row + j);
    squares += square;
  }
  const float tau = sum(squares) / n;
  if (tau < FLT_MIN) return 0;
  const float scale = 1 / std::sqrt(tau * n);
  for (float* p = x.data; p != x.at(d, 0); p += kLanes) vec(p) *= scale;
  std::fill(x.at(d, 0), x.at(padded(d), 0), 0.f);
  return tau;
}

// Where row i of the packed triangle would have its column 0.
int64_t packed_row(int64_t i, int64_t d) { return i * (2 * d - i - 1) / 2; }

// `scale` times the symmetric G + G^T for the gradient of the packed triangle.
void unpack_gradient(const float* packed, Matrix g, int64_t d, float scale) {
  for (int64_t i = 0; i < d; ++i) {
    const float* from = packed + packed_row(i, d);
    for (int64_t j = i; j < d; ++j) *g.at(i, j) = scale * from[j];
    std::fill(g.at(i, d), g.at(i, padded(d)), 0.f);
    for (int64_t j = i / kLanes * kLanes; j < i; ++j) *g.at(i, j) = *g.at(j, i);
  }
  for (int64_t i = 0; i < d; ++i) *g.at(i, i) *= 2;
  mirror(g, d);
}

// ---- the pooling

struct Pool {
  const Circuit& circuit;
  int64_t d, n;
  bool gram = n < d;
  int64_t m = gram ? n : d;  // order of the circuit's matrices
  int64_t dp = padded(d), np = padded(n), mp = padded(m);
  size_t steps = circuit.a.size();

  int64_t length() const { return d * (d + 1) / 2; }
  int64_t strip_size() const { return 4 * kLanes * std::max(d, kPiece); }
  int64_t saved_size() const { return (steps + 1) * m * mp + (gram ? dp * np : 0); }
  int64_t forward_size() const { return strip_size() + (2 + gram) * dp * np; }
  int64_t backward_size() const {
    return strip_size() + (1 + 3 * gram) * dp * np + std::max(dp * dp, dp * np) +
           (steps + 1) * m * mp;
  }

  // Q_1 ... Q_s and the value
  std::vector<Matrix> take_matrices(Space& space) const {
    std::vector<Matrix> matrices;
    for (size_t s = 0; s <= steps; ++s) matrices.push_back(space.take(m, mp));
    return matrices;
  }

  // Q_2 ... Q_s and the value, from Q_1
  void square(const std::vector<Matrix>& q, float* strip) const {
    for (size_t s = 0; s < steps; ++s) {
      const float a = circuit.a[s];
      Combination rest;
      for (size_t t = 0; t <= s; ++t) rest.add(circuit.b[s][t], q[t].data - q[0].data);
      product({{q[s], q[s]}}, m, m, mp, true, strip,
              [&rest, a, from = q[0], to = q[s + 1]](int64_t i, int64_t j, Vec v) {
                vec(to.at(i, j)) = rest.added_to(a * v, from.at(i, j));
              });
      if (s + 1 == steps) {
        for (int64_t i = 0; i < m; ++i) *q[steps].at(i, i) += circuit.c;
      }
      mirror(q[s + 1], m);
    }
  }

  // `last` times Qbar_1, and Qbar_2 ... Qbar_s, from the value's
  void sweep(const std::vector<Matrix>& bar, const std::vector<Matrix>& q, double last,
             float* strip) const {
    for (size_t s = steps; s-- > 0;) {
      const double scale = s ? 1 : last;
      const float a = scale * circuit.a[s];
      Combination rest;
      for (size_t t = s; t < steps; ++t) {
        rest.add(scale * circuit.b[t][s], bar[t + 1].data - bar[s].data);
      }
      product({{bar[s + 1], q[s]}, {q[s], bar[s + 1]}}, m, m, mp, true, strip,
              [&rest, a, to = bar[s]](int64_t i, int64_t j, Vec v) {
                vec(to.at(i, j)) = rest.added_to(a * v, to.at(i, j));
              });
      mirror(bar[s], m);
    }
  }

  void forward(const float* features, float* out, float* saved, float* memory) const {
    Space space{memory}, kept{saved};
    const std::vector<Matrix> q = take_matrices(kept);
    float* strip = space.take(strip_size(), 1).data;
    const Matrix x = space.take(dp, np), xt = space.take(np, dp);
    const float tau = normalize(features, x, d, n);
    if (tau == 0) {
      std::fill(out, out + length(), 0.f);
      return;
    }
    transpose(x, xt, dp, np);
    if (!gram) {
      // A long sum of squares drifts to one side: piece by piece, as covariance.py's scatter
      for (int64_t k = 0; k < n; k += kPiece) {
        const Matrix left{x.at(0, k), np}, right{xt.at(k, 0), dp};
        product({{left, right}}, d, std::min(kPiece, n - k), dp, true, strip,
                [k, to = q[0]](int64_t i, int64_t j, Vec v) {
                  vec(to.at(i, j)) = k ? vec(to.at(i, j)) + v : v;
                });
      }
      mirror(q[0], d);
      square(q, strip);
      const float root = std::sqrt(tau);
      for (int64_t i = 0; i < d; ++i) {
        for (const float *p = q[steps].at(i, i), *end = q[steps].at(i, d); p != end; ++p) {
          *out++ = root * *p;
        }
      }
      return;
    }
    product({{xt, x}}, n, d, np, true, strip,
            [to = q[0]](int64_t i, int64_t j, Vec v) { vec(to.at(i, j)) = v; });
    mirror(q[0], n);
    square(q, strip);
    const Matrix w = kept.take(dp, np), wt = space.take(np, dp);
    const float root = std::sqrt(std::sqrt(tau));
    product({{x, q[steps]}}, d, n, np, false, strip,
            [=](int64_t i, int64_t j, Vec v) { vec(w.at(i, j)) = v * root; });
    transpose(w, wt, dp, np);
    product({{w, wt}}, d, n, dp, true, strip, [=, d = d](int64_t i, int64_t j, Vec v) {
      float* row = out + packed_row(i, d);
      if (i <= j && j + kLanes <= d) {
        vec(row + j) = v;
      } else {
        for (int64_t k = std::max(i, j); k < std::min(j + kLanes, d); ++k) row[k] = v[k - j];
      }
    });
  }

  void backward(const float* grad, const float* features, float* saved, float* dx,
                float* memory) const {
    Space space{memory}, kept{saved};
    const std::vector<Matrix> q = take_matrices(kept);
    float* strip = space.take(strip_size(), 1).data;
    const Matrix g = space.take(std::max(dp, np), dp), y{g.data, np};  // y is needed after g
    const Matrix x = space.take(dp, np);
    const std::vector<Matrix> bar = take_matrices(space);
    const float tau = normalize(features, x, d, n);
    if (tau == 0) {
      std::fill(dx, dx + d * n, 0.f);
      return;
    }
    Vec value_bar = {}, xdx = {};
    if (!gram) {
      unpack_gradient(grad, bar[steps], d, std::sqrt(tau));
      for (int64_t i = 0; i < d; ++i) {
        for (int64_t j = 0; j < dp; j += kLanes) {
          value_bar += vec(q[steps].at(i, j)) * vec(bar[steps].at(i, j));
        }
      }
      sweep(bar, q, 1, strip);
      product({{bar[0], x}}, d, d, np, false, strip, [&xdx, x, y](int64_t i, int64_t j, Vec v) {
        xdx += vec(x.at(i, j)) * v;
        vec(y.at(i, j)) = v;
      });
    } else {
      const Matrix w = kept.take(dp, np), xt = space.take(np, dp);
      const Matrix dw = space.take(dp, np), dwt = space.take(np, dp);
      unpack_gradient(grad, g, d, 1);
      const float root = std::sqrt(std::sqrt(tau));
      product({{g, w}}, d, d, np, false, strip,
              [&value_bar, w, dw, root](int64_t i, int64_t j, Vec v) {
                value_bar += vec(w.at(i, j)) * v;
                vec(dw.at(i, j)) = v * root;
              });
      transpose(x, xt, dp, np);
      transpose(dw, dwt, dp, np);
      product({{xt, dw}, {dwt, x}}, n, d, np, true, strip,
              [to = bar[steps]](int64_t i, int64_t j, Vec v) { vec(to.at(i, j)) = v * 0.5f; });
      mirror(bar[steps], n);
      sweep(bar, q, 2, strip);  // dx needs twice the last one
      product({{dw, q[steps]}, {x, bar[0]}}, d, n, np, false, strip,
              [&xdx, x, y](int64_t i, int64_t j, Vec v) {
                xdx += vec(x.at(i, j)) * v;
                vec(y.at(i, j)) = v;
              });
    }
    // tau scales the result and the features: 2 tau dL/dtau, with d tau = 2 x . dx / N
    const float dtau = sum(value_bar) / 2 - sum(xdx), scale = 1 / std::sqrt(tau * n);
    for (int64_t i = 0; i < d; ++i, dx += n) {
      Vec total = {};
      for (int64_t j = 0; j < np; j += kLanes) {
        total += vec(y.at(i, j)) = (vec(y.at(i, j)) + dtau * vec(x.at(i, j))) * scale;
      }
      const float mean = sum(total) / n;
      for (int64_t j = 0; j < np; j += kLanes) vec(y.at(i, j)) -= mean;
      std::memcpy(dx, y.at(i, 0), n * sizeof(float));
    }
  }
};

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x, at::ArrayRef<double> a,
                                           at::ArrayRef<double> b, double c) {
  const Circuit circuit(a, b, c);
  const Pool pool{circuit, x.size(1), x.size(2)};
  const at::Tensor out = at::empty({x.size(0), pool.length()}, x.options());
  const int64_t size = pool.saved_size();
  const at::Tensor saved = at::empty({x.size(0), size}, x.options());
  const float* from = x.data_ptr<float>();
  float *to = out.data_ptr<float>(), *to_saved = saved.data_ptr<float>();
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    const at::Tensor memory = at::empty({pool.forward_size()}, x.options());
    for (int64_t s = begin; s < end; ++s) {
      pool.forward(from + s * pool.d * pool.n, to + s * pool.length(), to_saved + s * size,
                   memory.data_ptr<float>());
    }
  });
  return {out, saved};
}

at::Tensor backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& saved,
                    at::ArrayRef<double> a, at::ArrayRef<double> b, double c) {
  const Circuit circuit(a, b, c);
  const Pool pool{circuit, x.size(1), x.size(2)};
  const at::Tensor dx = at::empty_like(x);
  const float *from = x.data_ptr<float>(), *from_grad = grad.data_ptr<float>();
  float *to = dx.data_ptr<float>(), *from_saved = saved.data_ptr<float>();
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    const at::Tensor memory = at::empty({pool.backward_size()}, x.options());
    for (int64_t s = begin; s < end; ++s) {
      pool.backward(from_grad + s * pool.length(), from + s * pool.d * pool.n,
                    from_saved + s * saved.size(1), to + s * pool.d * pool.n,
                    memory.data_ptr<float>());
    }
  });
  return dx;
}

}  // namespace

TORCH_LIBRARY(gcp_mm_cpu, m) {
  m.def("forward(Tensor x, float[] a, float[] b, float c) -> (Tensor, Tensor)", &forward);
  m.def("backward(Tensor grad, Tensor x, Tensor saved, float[] a, float[] b, float c)"
        " -> Tensor",
        &backward);
}
