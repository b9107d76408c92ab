"""The quadratic form of edges and its minimizer, against a sparse direct solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from colorized.color.edges import Edges, conjugate_gradients
from colorized.inference.steering import Steering

H, W = 9, 13


@pytest.fixture
def lightness() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 100, (H, W)).astype(np.float32)


def matrix(L: np.ndarray, sigma: float, alpha: float, floor: float) -> sparse.csr_array:
    """A of E(x) = xᵀ A x, pair by pair from the definition."""
    H, W = L.shape
    A = sparse.lil_array((H * W, H * W))
    for y in range(H):
        for x in range(W):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if y + dy < H and 0 <= x + dx < W:
                    p, q = y * W + x, (y + dy) * W + x + dx
                    difference = abs(float(L[y, x]) - float(L[y + dy, x + dx]))
                    w = 1 / (1 + (difference / sigma) ** alpha) + floor
                    w *= 0.7 if dy and dx else 1
                    for i, k, sign in ((p, p, 1), (q, q, 1), (p, q, -1), (q, p, -1)):
                        A[i, k] += sign * w
    return sparse.csr_array(A)


def test_flow_is_the_gradient(lightness: np.ndarray) -> None:
    x = np.random.default_rng(1).normal(size=(3, H, W)).astype(np.float32)
    A = matrix(lightness, 5, 1.5, 0.01)
    flow = Edges(torch.from_numpy(lightness), 5, 1.5, 0.01).flow(torch.from_numpy(x)).numpy()
    expected = (A @ x.reshape(3, -1).T).T.reshape(x.shape)
    np.testing.assert_allclose(flow, expected, atol=1e-4)


@pytest.mark.parametrize("size", [(H, W), (W, H), (1, W), (H, 1), (1, 1)])
def test_solver(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    L = rng.uniform(0, 100, size).astype(np.float32)
    diagonal, target = rng.uniform(0.01, 3, size), rng.normal(size=(2, 3, *size))
    solve = Edges(torch.from_numpy(L), 5, 1.5, 0.01).solver(torch.from_numpy(diagonal))
    A = matrix(L, 5, 1.5, 0.01) + sparse.diags_array(diagonal.ravel())
    expected = spsolve(A.tocsc(), target.reshape(6, -1).T).T.reshape(target.shape)
    np.testing.assert_allclose(solve(torch.from_numpy(target)), expected, rtol=1e-4, atol=1e-4)


def test_conjugate_gradients_of_several_pictures_at_once(lightness: np.ndarray) -> None:
    """And a picture of zeros, which is solved before it begins, gives no NaN."""
    target = np.random.default_rng(2).normal(size=(3, H, W)).astype(np.float32)
    target[1] = 0
    edges = Edges(torch.from_numpy(lightness), 5, 1.5, 0.01)
    solved = conjugate_gradients(
        lambda v: 0.1 * v + edges.flow(v), torch.from_numpy(target), torch.zeros(3, H, W), 80
    ).numpy()
    A = matrix(lightness, 5, 1.5, 0.01) + 0.1 * sparse.eye_array(H * W)
    expected = spsolve(A.tocsc(), target.reshape(3, -1).T).T.reshape(target.shape)
    np.testing.assert_allclose(solved, expected, atol=1e-3)


class TestSteering:
    def test_spread_is_the_minimum(self, lightness: np.ndarray) -> None:
        share = np.zeros((H, W), np.float32)
        share[2, 3], share[7, 9] = 1, 0.4
        known = np.random.default_rng(3).normal(size=(H, W, 2)).astype(np.float32)
        x = torch.from_numpy(np.random.default_rng(4).normal(size=(1, 2, H, W))).float()
        corrected = Steering(share, known, lightness).correct(x)

        m = 100 * share.ravel()
        A = matrix(lightness, 4, 3, 0) + sparse.diags_array(m + 0.002)
        error = known.transpose(2, 0, 1).reshape(2, -1) - x.numpy().reshape(2, -1)
        r = spsolve(A.tocsc(), (m * error).T).T
        np.testing.assert_allclose((corrected - x).numpy().reshape(2, -1), r, atol=1e-4)

    def test_color_flows_over_an_even_surface_and_stops_at_its_edge(self) -> None:
        L = np.full((32, 32), 40, np.float32)
        L[:, 16:] = 80
        share = np.zeros((32, 32), np.float32)
        share[16, 8] = 1
        known = np.zeros((32, 32, 2), np.float32)
        known[16, 8] = 30, -20
        r = Steering(share, known, L).correct(torch.zeros(1, 2, 32, 32))[0].numpy()
        np.testing.assert_allclose(r[:, 16, 8], [30, -20], atol=1)
        assert r[0, :, :16].mean() > 12  # of 30 at one pixel
        assert np.abs(r[0, :, 17:]).mean() < 0.25 * r[0, :, :16].mean()
        assert np.all(np.diff(r[0, 16, 8:15]) <= 1e-3)  # fades with distance

    def test_nothing_known_changes_nothing(self, lightness: np.ndarray) -> None:
        nothing = np.zeros((H, W), np.float32)
        x = torch.randn(2, 2, H, W, generator=torch.Generator().manual_seed(0))
        steering = Steering(nothing, np.zeros((H, W, 2), np.float32), lightness)
        assert torch.equal(steering.correct(x), x)
