/** Starts the console. */

import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { ApiError } from "./api/client";
import { router } from "./routes";
import { SignedIn } from "./shell/session";
import { apply } from "./shell/theme";
import "./styles/tokens.css";
import "./styles/base.css";

apply();

const client = new QueryClient({
  defaultOptions: {
    queries: {
      // What the server refused it will refuse again; only what did not reach it is worth another try.
      retry: (times, error) => times < 2 && (!(error instanceof ApiError) || error.status === 0 || error.status === 503),
      refetchOnWindowFocus: false,
      staleTime: 5000,
    },
  },
});

const root = document.getElementById("root");
if (root === null) throw new Error("the page has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <SignedIn>
        <RouterProvider router={router} />
      </SignedIn>
    </QueryClientProvider>
  </StrictMode>,
);
